package movein

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

const swapped = `
healthCheckTimeout: 5
globalTTL: 300
apiKeys: ["sk-secret"]
startPort: 9000
macros:
  ctx: 4096
  args: "--ctx-size ${ctx} -ngl 99"
  server: llama-server --port ${PORT} --host 127.0.0.1
models:
  plain:
    macros: { ctx: 8192 }
    aliases: [a, {id: b}]
    cmd: |
      # a comment
      ${server} ${args}
      -m 'models/with space.gguf' --mmproj p.gguf
    ttl: 0
    useModelName: other
    filters:
      stripParams: "temperature, top_k"
      setParams: { temperature: 0.5, n: 1, on: true, list: [1, "x"], obj: { a: 1 } }
      setParamsByID:
        "${MODEL_ID}:high": { reasoning_effort: high }
  hub:
    cmd: llama-server -hf a/b:Q4_K_M --port ${PORT} --embeddings
  box:
    cmd: docker run --name box -p ${PORT}:80 ${env.IMAGE}
    cmdStop: docker stop box
    proxy: http://127.0.0.1:${PORT}
    checkEndpoint: none
    concurrencyLimit: 3
    env: ["A=b=c"]
    timeouts: { responseHeader: 7 }
  far:
    cmd: serve --port 7000
    proxy: http://127.0.0.1:7000/base
    metadata: { x: 1 }
  lost:
    cmd: serve ${nothing}
  open:
    cmd: serve "oops
  empty:
    name: none
groups:
  stays: { persistent: true, members: [hub] }
  swaps: { swap: true, members: [plain, box] }
hooks: { on_startup: { preload: [box, nobody] } }
peers:
  other: { proxy: "https://x.example/v1", apiKey: "sk-peer", models: [m1] }
novelty: 1
`

func TestImportLlamaSwap(t *testing.T) {
	env := map[string]string{"IMAGE": "img:1"}
	got, err := ImportLlamaSwap(strings.NewReader(swapped), "/etc/swap", func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, e := range got.Entries {
		text.Write(Render(e))
		text.WriteString("\n")
	}
	for _, r := range got.Remotes {
		text.WriteString(r.Render())
	}
	text.WriteString("\n")
	for _, n := range got.Notes {
		text.WriteString(strings.TrimSpace(n.Key+": "+n.Text) + "\n")
	}
	if strings.Contains(text.String(), "sk-") {
		t.Error("a secret is shown")
	}
	golden := filepath.Join("testdata", "llamaswap.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || text.String() != string(want) {
		t.Errorf("%v, got\n%s", err, text.String())
	}
}

func TestImportRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": " \n", "no YAML": "models: [", "something else": "services: {}", "another type": "models: { a: { cmd: [1] } }\nhealthCheckTimeout: {}",
		"too much": strings.Repeat("#", maxImport+1),
	} {
		if got, err := ImportLlamaSwap(strings.NewReader(text), "/", os.Getenv); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzImportLlamaSwap(f *testing.F) {
	f.Add(swapped)
	f.Add("models: { a: { cmd: '${a}', macros: { a: '${a}' } } }")
	f.Add("models:\n  a: &x { cmd: b }\n  c: *x\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ImportLlamaSwap(strings.NewReader(text), "/etc", func(string) string { return "" })
		if err != nil {
			return
		}
		for _, e := range got.Entries {
			var v map[string]any
			if err := toml.Unmarshal(Render(e), &v); err != nil {
				t.Errorf("%v:\n%s", err, Render(e))
			}
		}
	})
}
