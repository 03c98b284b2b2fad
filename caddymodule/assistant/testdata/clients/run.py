"""What the clients in Python have in common."""
import json
import traceback


def run(cases):
    """Prints one line of JSON for each case: (name, how, what is wanted)."""
    for name, how, want in cases:
        try:
            got = how()
        except Exception:
            got = traceback.format_exc(limit=-1)
        print(json.dumps({"case": name, "ok": got == want, "got": repr(got)}))
