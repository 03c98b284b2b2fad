// What the clients in JavaScript have in common.
import { createRequire } from 'node:module';

// Packages are where scripts/get-clients.sh put them.
export const require = createRequire(process.env.NODE_CLIENTS + '/');

// run prints one line of JSON for each case, [name, how, what is wanted].
export async function run(cases) {
  for (const [name, how, want] of cases) {
    let got;
    try {
      got = await how();
    } catch (e) {
      got = String(e.stack).slice(0, 300);
    }
    console.log(JSON.stringify({ case: name, ok: JSON.stringify(got) === JSON.stringify(want), got: JSON.stringify(got) }));
  }
}
