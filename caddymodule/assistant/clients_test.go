//go:build clients

package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiktoken-go/tokenizer/codec"

	"assistant/internal/enginetest"
	"assistant/internal/realtest"
)

// asked is an engine of the matrix: it serves the models NAME-count (answers " 1 2 3 … 200"), NAME-chat, NAME-tools, NAME-embed.
type asked struct {
	name       string
	models     func(t *testing.T) map[string]string
	schema     bool   // it keeps to JSON schemas
	toolChoice string // by which NAME-tools is sure to call
	noTools    string // why it is not
}

var enginesAsked = []asked{
	{"fake", fakeModels, false, "auto", ""},
	{"llama", llamaModels, true, "required", "llama-server (0.7.0) forces no call, and so small a model makes none by itself"},
	{"guest", guestModels, true, "required", ""},
}

// fakeModels have all the quirks of llama-api-server.
func fakeModels(t *testing.T) map[string]string {
	engine := enginetest.Binary(t)
	edge := func(name, more string, flags ...string) string {
		argv := append([]string{engine, "--port", "{{port}}", "--dialect", enginetest.DialectLlamaAPIServer, "-c", "{{ctx_size}}"}, flags...)
		return fmt.Sprintf("name = %q\ncommand = [\"%s\"]\ndialect = \"llama-api-server\"\nctx_size = 500\n%s\n", name, strings.Join(argv, `", "`), more)
	}
	tools := []string{"--tokens", "200", "--prompt-template", "chatml-tool"}
	return map[string]string{
		"fake-count.toml": edge("fake-count", "", "--tokens", "200"),
		"fake-chat.toml":  edge("fake-chat", "", "--tokens", "200"),
		"fake-tools.toml": edge("fake-tools", "", tools...),
		"fake-embed.toml": edge("fake-embed", `kind = "embedding"`, "--embeddings"),

		// Those speak as llama-server does.
		"fake-slow.toml":  fakeModel("chat", engine, "--tokens", "3", "--start-delay", "1500ms"),
		"fake-echo.toml":  fakeModel("chat", engine, "--echo"),
		"fake-ear.toml":   fakeModel("transcription", engine, "--echo"),
		"fake-mouth.toml": fakeModel("speech", engine, "--echo"),
		"fake-hand.toml":  fakeModel("image", engine, "--echo"),
	}
}

func fakeModel(kind, engine string, flags ...string) string {
	argv := append([]string{engine, "--port", "{{port}}"}, flags...)
	return fmt.Sprintf("kind = %q\ncommand = [\"%s\"]\nready_path = \"/health\"\n", kind, strings.Join(argv, `", "`))
}

func llamaModels(t *testing.T) map[string]string {
	return map[string]string{
		"llama-count.toml": modelTOML(t, "llama-count", tinyFile, ""),
		"llama-chat.toml":  modelTOML(t, "llama-chat", smollm2File, ""),
		"llama-tools.toml": modelTOML(t, "llama-tools", smollm2File, ""),
		"llama-embed.toml": modelTOML(t, "llama-embed", minilmFile, `kind = "embedding"`),
	}
}

// guestModels run in the real WasmEdge.
func guestModels(t *testing.T) map[string]string {
	return map[string]string{
		"guest-count.toml": wasmModel(t, "guest-count", tinyFile, ""),
		"guest-chat.toml":  wasmModel(t, "guest-chat", smollm2File, ""),
		"guest-tools.toml": wasmModel(t, "guest-tools", smollm2File, `prompt_template = "chatml-tool"`),
		"guest-embed.toml": wasmModel(t, "guest-embed", minilmFile, `kind = "embedding"`),
	}
}

// clients are the programs of testdata/clients, by what they ask with.
func clients(t *testing.T) []struct{ name, command string } {
	t.Helper()
	program := filepath.Join(t.TempDir(), "openai-go")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join("testdata", "clients", "go")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("openai-go: %v\n%s", err, out)
	}
	need := func(name string) string { return realtest.Need(t, name) }
	return []struct{ name, command string }{
		{"openai-python 3.57", need("ASSISTANT_TEST_PYTHON") + " openai_python.py"},
		{"openai-python 1.109", need("ASSISTANT_TEST_PYTHON_OLD") + " openai_python.py"},
		{"langchain-openai 1.7", need("ASSISTANT_TEST_PYTHON_LANGCHAIN") + " langchain_python.py"},
		{"LlamaIndex 0.14", need("ASSISTANT_TEST_PYTHON_LLAMA_INDEX") + " llama_index_python.py"},
		{"anthropic 2.14", need("ASSISTANT_TEST_PYTHON_OTHERS") + " anthropic_python.py"},
		{"ollama 0.6", need("ASSISTANT_TEST_PYTHON_OTHERS") + " ollama_python.py"},
		{"litellm 1.110", need("ASSISTANT_TEST_PYTHON_OTHERS") + " litellm_python.py"},
		{"openai-node 7.57", "node openai_node.mjs openai"},
		{"openai-node 4.104", "node openai_node.mjs openai-4"},
		{"AI SDK 6", "node ai_sdk.mjs"},
		{"ChatBox's check", "node chatbox.mjs"},
		{"@langchain/openai 1.6", "node langchain_node.mjs"},
		{"openai-go 3.98", program},
	}
}

// outcome is what a client printed of a case.
type outcome struct {
	Case string
	OK   bool
	Got  string
	Note string
}

// TestClients asks every engine by every client and prints what became of each case.
func TestClients(t *testing.T) {
	models := map[string]string{}
	for _, e := range enginesAsked {
		maps.Copy(models, e.models(t))
	}
	s := startServer(t, models)
	s.write(vocabularyFile, vocabulary(t))
	red := 0
	for _, c := range clients(t) {
		cells := map[string][]string{} // case → a word for each engine
		var order, notes []string
		for i, e := range enginesAsked {
			for _, o := range s.askBy(c.command, e) {
				if cells[o.Case] == nil {
					cells[o.Case] = make([]string, len(enginesAsked))
					order = append(order, o.Case)
				}
				cells[o.Case][i] = "ok"
				switch {
				case o.OK:
				case strings.HasSuffix(o.Case, "tools") && e.noTools != "":
					cells[o.Case][i] = "-"
				default:
					cells[o.Case][i] = "RED"
					red++
					t.Errorf("%s, %s, %s: %s", c.name, o.Case, e.name, o.Got)
				}
				if o.Note != "" {
					notes = append(notes, fmt.Sprintf("  %s, %s: %s", o.Case, e.name, o.Note))
				}
			}
		}
		fmt.Printf("\n%-24s%8s%8s%8s\n", c.name, enginesAsked[0].name, enginesAsked[1].name, enginesAsked[2].name)
		for _, name := range order {
			fmt.Printf("  %-22s%8s%8s%8s\n", name, cells[name][0], cells[name][1], cells[name][2])
		}
		for _, n := range notes {
			fmt.Println(n)
		}
	}
	for _, e := range enginesAsked {
		if e.noTools != "" {
			fmt.Printf("\n- tools, %s: %s\n", e.name, e.noTools)
		}
	}
	fmt.Printf("\n%d cells are red\n", red)
}

// vocabularyFile is where tiktoken, by which LangChain cuts what it embeds, looks for OpenAI's vocabulary before it fetches it: named by
// the SHA-1 of its address (tiktoken/load.py).
const vocabularyFile = "tiktoken/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"

// vocabulary is that file: tiktoken checks its sum.
func vocabulary(t *testing.T) string {
	t.Helper()
	const tokens = 100256
	known := codec.NewCl100kBase()
	var out strings.Builder
	for id := range uint(tokens) {
		text, err := known.Decode([]uint{id})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %d\n", base64.StdEncoding.EncodeToString([]byte(text)), id)
	}
	return out.String()
}

func (s *server) askBy(command string, e asked) []outcome {
	s.t.Helper()
	words := strings.Fields(command)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = filepath.Join("testdata", "clients")
	schema := "0"
	if e.schema {
		schema = "1"
	}
	cmd.Env = append(os.Environ(), "BASE_URL="+s.https+"/v1", "SSL_CERT_FILE="+s.ca(), "NODE_EXTRA_CA_CERTS="+s.ca(),
		"NODE_CLIENTS="+realtest.Need(s.t, "ASSISTANT_TEST_NODE_CLIENTS"), "ENGINE="+e.name, "SCHEMA="+schema, "TOOL_CHOICE="+e.toolChoice,
		"PULL=file:"+filepath.Join(realtest.Need(s.t, "ASSISTANT_TEST_MODELS"), tinyFile),
		"TIKTOKEN_CACHE_DIR="+filepath.Join(s.dir, "tiktoken"), "LITELLM_LOCAL_MODEL_COST_MAP=True")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		s.t.Errorf("%s, %s: %v\n%s", command, e.name, err, out)
	}
	var outcomes []outcome
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var o outcome
		if json.Unmarshal(lines.Bytes(), &o) == nil && o.Case != "" {
			outcomes = append(outcomes, o)
		}
	}
	return outcomes
}
