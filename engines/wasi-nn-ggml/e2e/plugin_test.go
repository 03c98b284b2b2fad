// Package e2e tests the WASI-NN plug-in in a real WasmEdge, by a guest that calls it as
// the wasmedge-wasi-nn crate does. The plug-in's core has a test of its own: test.sh.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"assistant/internal/realtest"
)

const (
	smollm2 = "smollm2-135m-instruct.gguf"
	minilm  = "all-minilm-l6-v2.gguf"
	tiny    = "tiny.gguf" // answers everything with " 1 2 3 … 200"

	paris = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)

// The errors of the wasmedge-wasi-nn crate.
const (
	invalidArgument      = 1
	invalidEncoding      = 2
	runtimeError         = 5
	unsupportedOperation = 6
	tooLarge             = 7
	notFound             = 8
	endOfSequence        = 100
	contextFull          = 101
	promptTooLong        = 102
	modelNotFound        = 103
)

func model(t testing.TB, file string) string {
	t.Helper()
	return filepath.Join(realtest.Need(t, "ASSISTANT_TEST_MODELS"), file)
}

// wasm builds the guest, once.
var wasm = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wasi-nn-guest-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "guest.wasm")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s", "-o", file, ".")
	build.Dir = filepath.Join("testdata", "guest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the guest: %w\n%s", err, out)
	}
	return file, nil
})

func TestMain(m *testing.M) {
	status := m.Run()
	if !testing.Short() {
		if file, err := wasm(); err == nil {
			_ = os.RemoveAll(filepath.Dir(file))
		}
	}
	os.Exit(status)
}

type request struct {
	Do      string `json:"do"`
	Handle  uint32 `json:"handle"`
	Index   uint32 `json:"index"`
	Name    string `json:"name,omitempty"`
	Config  string `json:"config,omitempty"`
	Data    string `json:"data,omitempty"`
	Size    uint32 `json:"size"`
	Address uint32 `json:"address"`
	Length  uint32 `json:"length"`
}

type answer struct {
	Errno  uint32   `json:"errno"`
	Handle uint32   `json:"handle"`
	Data   string   `json:"data"`
	Length uint32   `json:"length"`
	Pieces []string `json:"pieces"`
}

// guest is our guest in a running WasmEdge.
type guest struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	stderr bytes.Buffer // to be read after close
}

// wasmedge is the command to run the guest, with options of wasmedge's.
func wasmedge(t testing.TB, options ...string) *exec.Cmd {
	t.Helper()
	program := realtest.Need(t, "ASSISTANT_TEST_WASMEDGE")
	plugin := realtest.Need(t, "ASSISTANT_TEST_WASI_NN")
	file, err := wasm()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, append(options, file)...)
	cmd.Env = append(os.Environ(), "WASMEDGE_PLUGIN_PATH="+filepath.Dir(plugin))
	return cmd
}

func start(t testing.TB, options ...string) *guest {
	t.Helper()
	g := &guest{t: t, cmd: wasmedge(t, options...)}
	g.cmd.Stderr = &g.stderr
	in, err := g.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.in, g.out = in, json.NewDecoder(out)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	return g
}

// close lets the guest end, and fails the test if it did not end well.
func (g *guest) close() {
	g.t.Helper()
	if g.cmd.ProcessState != nil {
		return
	}
	_ = g.in.Close()
	if err := g.cmd.Wait(); err != nil {
		g.t.Errorf("wasmedge: %v\n%s", err, g.stderr.String())
	}
}

func (g *guest) do(r request) answer {
	g.t.Helper()
	line, err := json.Marshal(r)
	if err != nil {
		g.t.Fatal(err)
	}
	var a answer
	if _, err = g.in.Write(append(line, '\n')); err == nil {
		err = g.out.Decode(&a)
	}
	if err != nil {
		_ = g.in.Close()
		_ = g.cmd.Wait()
		g.t.Fatalf("%s: %v\n%s", line, err, g.stderr.String())
	}
	return a
}

// want does r and checks the error number.
func (g *guest) want(errno uint32, r request) answer {
	g.t.Helper()
	a := g.do(r)
	if a.Errno != errno {
		g.t.Fatalf("%+v: error %d, want %d", r, a.Errno, errno)
	}
	return a
}

// open loads a model by its name and gives the handles of it and of a context.
func (g *guest) open(name, config string) (graph, context uint32) {
	g.t.Helper()
	graph = g.want(0, request{Do: "load", Name: name, Config: config}).Handle
	return graph, g.want(0, request{Do: "init", Handle: graph}).Handle
}

// known is what output 1 tells.
type known struct {
	InputTokens  int    `json:"input_tokens"`
	OutputTokens int    `json:"output_tokens"`
	FinishReason string `json:"finish_reason"`
	BuildNumber  uint64 `json:"llama_build_number"`
	Commit       string `json:"llama_commit"`
}

func (g *guest) known(context uint32) (k known) {
	g.t.Helper()
	data := g.want(0, request{Do: "output", Handle: context, Index: 1}).Data
	if err := json.Unmarshal([]byte(data), &k); err != nil {
		g.t.Fatalf("%q: %v", data, err)
	}
	return k
}

func TestChatAndEmbedding(t *testing.T) {
	g := start(t, "--nn-preload", "default:GGML:AUTO:"+model(t, smollm2), "--nn-preload=embedding:GGML:AUTO:"+model(t, minilm))
	_, chat := g.open("default", `{"ctx-size":512,"threads":1,"temp":0,"enable-log":true}`)
	_, embedding := g.open("embedding", `{"ctx-size":384,"threads":1,"embedding":true}`)

	// The number of the prompt's tokens is known before anything is computed: llama-core cuts by it.
	g.want(0, request{Do: "input", Handle: chat, Data: paris})
	if k := g.known(chat); k.InputTokens != 16 || k.OutputTokens != 0 || k.BuildNumber == 0 || k.Commit == "" {
		t.Errorf("of the prompt is known %+v", k)
	}

	streamed := g.want(endOfSequence, request{Do: "stream", Handle: chat})
	text := strings.Join(streamed.Pieces, "")
	if !strings.Contains(text, "Paris") || len(streamed.Pieces) < 5 {
		t.Errorf("streamed %q", streamed.Pieces)
	}
	if k := g.known(chat); k.OutputTokens != len(streamed.Pieces) || k.FinishReason != "stop" {
		t.Errorf("%d pieces, known is %+v", len(streamed.Pieces), k)
	}
	g.want(0, request{Do: "fini", Handle: chat})
	g.want(0, request{Do: "compute", Handle: chat})
	if got := g.want(0, request{Do: "output", Handle: chat}).Data; got != text {
		t.Errorf("computed %q, streamed %q", got, text)
	}

	// llama-core changes how much is to be answered by a whole set of options.
	g.want(0, request{Do: "input", Handle: chat, Index: 1, Data: `{"ctx-size":512,"threads":1,"temp":0,"n-predict":3}`})
	g.want(0, request{Do: "input", Handle: chat, Data: paris})
	g.want(0, request{Do: "compute", Handle: chat})
	if k := g.known(chat); k.OutputTokens != 3 || k.FinishReason != "length" {
		t.Errorf("n-predict 3: %+v", k)
	}

	const sentence = "This is an example sentence"
	g.want(0, request{Do: "input", Handle: embedding, Data: sentence})
	g.want(0, request{Do: "compute", Handle: embedding})
	var got struct {
		N         int       `json:"n_embedding"`
		Embedding []float64 `json:"embedding"`
	}
	if err := json.Unmarshal([]byte(g.want(0, request{Do: "output", Handle: embedding}).Data), &got); err != nil {
		t.Fatal(err)
	}
	if got.N != 384 || len(got.Embedding) != 384 {
		t.Fatalf("n_embedding %d, and %d numbers", got.N, len(got.Embedding))
	}
	if c := cosine(got.Embedding, embedLlamaServer(t, sentence)); c < 0.9999 {
		t.Errorf("cosine to llama-server's embedding is %.6f", c)
	}

	g.close()
	if log := g.stderr.String(); strings.Contains(log, "capital") || strings.Contains(log, sentence) {
		t.Errorf("a prompt is in the log:\n%s", log)
	} else if !strings.Contains(log, "llama_context") {
		t.Errorf("enable-log logged nothing of llama.cpp's:\n%s", log)
	}
}

func cosine(a, b []float64) float64 {
	var ab, aa, bb float64
	for i := range min(len(a), len(b)) {
		ab, aa, bb = ab+a[i]*b[i], aa+a[i]*a[i], bb+b[i]*b[i]
	}
	return ab / math.Sqrt(aa*bb)
}

// startLlamaServer starts one and gives its process and a client that reaches it.
func startLlamaServer(t testing.TB, args ...string) (*exec.Cmd, *http.Client) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "llama.sock")
	cmd := exec.CommandContext(context.Background(), realtest.Need(t, "ASSISTANT_TEST_LLAMA_SERVER"), append(args, "--host", socket, "-t", "1", "--offline")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	for began := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		if resp, err := client.Get("http://llama/health"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return cmd, client
			}
		}
		if time.Since(began) > time.Minute {
			t.Fatal("llama-server is not ready after a minute")
		}
	}
}

func post(t testing.TB, client *http.Client, path, body string, into any) {
	t.Helper()
	resp, err := client.Post("http://llama"+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
}

func embedLlamaServer(t *testing.T, text string) []float64 {
	t.Helper()
	_, client := startLlamaServer(t, "-m", model(t, minilm), "--embeddings")
	var got struct {
		Data []struct {
			Embedding []float64 `json:"embedding"`
		} `json:"data"`
	}
	post(t, client, "/v1/embeddings", fmt.Sprintf(`{"input": %q}`, text), &got)
	if len(got.Data) != 1 {
		t.Fatalf("llama-server gave %d embeddings", len(got.Data))
	}
	return got.Data[0].Embedding
}

func TestErrors(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.gguf")
	if err := os.WriteFile(broken, []byte("GGUF is how it begins, but it does not go on"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := start(t,
		"--nn-preload", "wrong", "--nn-preload", "onnx:ONNX:AUTO:/x", "--nn-preload", "missing:GGML:AUTO:/nonexistent/model.gguf",
		"--nn-preload", "broken:GGML:AUTO:"+broken, "--dir", "/:"+filepath.Dir(model(t, tiny)),
		"--nn-preload", "tiny:GGML:CPU:"+model(t, tiny))
	const end = 1<<32 - 4 // beyond what a guest of a few MB has

	for _, c := range []struct {
		what  string
		errno uint32
		r     request
	}{
		{"a name nobody gave", notFound, request{Do: "load", Name: "nobody"}},
		{"the empty name", notFound, request{Do: "load"}},
		{"another encoding", notFound, request{Do: "load", Name: "onnx"}},
		{"a file that is not there", modelNotFound, request{Do: "load", Name: "missing"}},
		{"a file that is no model", runtimeError, request{Do: "load", Name: "broken"}},
		{"metadata that is no JSON", invalidArgument, request{Do: "load", Name: "tiny", Config: "{"}},
		{"metadata of a wrong type", invalidArgument, request{Do: "load", Name: "tiny", Config: `{"ctx-size":"big"}`}},
		{"what we do not have", unsupportedOperation, request{Do: "load", Name: "tiny", Config: `{"json_schema":"{}"}`}},
		{"a name beyond memory", invalidArgument, request{Do: "load_name_at", Address: end, Length: 4}},
		{"a name that goes round", invalidArgument, request{Do: "load_name_at", Address: 16, Length: 1<<32 - 8}},
		{"a handle beyond memory", invalidArgument, request{Do: "load_into", Name: "tiny", Address: end + 2}},
		{"parts beyond memory", invalidArgument, request{Do: "load_at", Address: end, Length: 2}},
		{"no parts", invalidArgument, request{Do: "load_at", Address: 0, Length: 0}},
		{"too many parts", invalidArgument, request{Do: "load_at", Address: 0, Length: 1 << 31}},
		{"bytes of another encoding", invalidEncoding, request{Do: "load_file", Name: "/" + tiny, Index: 1}},
		{"a graph nobody has", invalidArgument, request{Do: "init", Handle: 99}},
		{"a context nobody has", invalidArgument, request{Do: "compute", Handle: 99}},
		{"a context nobody has", invalidArgument, request{Do: "single", Handle: 99}},
		{"a context nobody has", invalidArgument, request{Do: "fini", Handle: 99}},
		{"a context nobody has", invalidArgument, request{Do: "input", Handle: 99, Data: "x"}},
		{"a context nobody has", invalidArgument, request{Do: "output", Handle: 99}},
		{"a context nobody has", invalidArgument, request{Do: "finalize", Handle: 99}},
		{"a graph nobody has", invalidArgument, request{Do: "unload", Handle: 99}},
	} {
		if a := g.do(c.r); a.Errno != c.errno {
			t.Errorf("%s: error %d, want %d", c.what, a.Errno, c.errno)
		}
	}

	graph, run := g.open("tiny", `{"ctx-size":64,"threads":1}`)
	for _, c := range []struct {
		what  string
		errno uint32
		r     request
	}{
		{"no prompt yet", invalidArgument, request{Do: "single", Handle: run}},
		{"a tensor beyond memory", invalidArgument, request{Do: "input_tensor_at", Handle: run, Address: end}},
		{"data beyond memory", invalidArgument, request{Do: "input_at", Handle: run, Address: end, Length: 100}},
		{"data longer than memory", invalidArgument, request{Do: "input_at", Handle: run, Address: 0, Length: 1<<32 - 1}},
		{"input 2", invalidArgument, request{Do: "input", Handle: run, Index: 2, Data: "x"}},
		{"wrong metadata", invalidArgument, request{Do: "input", Handle: run, Index: 1, Data: "x"}},
		{"a long prompt", 0, request{Do: "input", Handle: run, Data: strings.Repeat(" 1", 100)}},
		{"a long prompt", promptTooLong, request{Do: "compute", Handle: run}},
		{"a long prompt", promptTooLong, request{Do: "single", Handle: run}},
		{"a long answer", 0, request{Do: "input", Handle: run, Data: "go"}},
		{"a long answer", contextFull, request{Do: "compute", Handle: run}},
		{"output 2", invalidArgument, request{Do: "output", Handle: run, Index: 2}},
		{"a buffer that is too small", tooLarge, request{Do: "output", Handle: run, Size: 3}},
		{"a buffer beyond memory", invalidArgument, request{Do: "output_at", Handle: run, Address: end, Length: 1 << 20}},
		{"a buffer beyond memory, its size not told", tooLarge, request{Do: "output_at", Handle: run, Address: end}},
	} {
		if a := g.do(c.r); a.Errno != c.errno {
			t.Errorf("%s: error %d, want %d", c.what, a.Errno, c.errno)
		}
	}
	whole := g.want(0, request{Do: "output", Handle: run})
	if !strings.HasPrefix(whole.Data, " 1 2 3 4 5") {
		t.Errorf("until the context was full: %q", whole.Data)
	}
	if a := g.do(request{Do: "output", Handle: run, Size: 3}); a.Length != whole.Length {
		t.Errorf("too small a buffer: %d bytes are needed, told was %d", whole.Length, a.Length)
	}

	// A context ends with its graph; a handle is not given twice.
	g.want(0, request{Do: "unload", Handle: graph})
	g.want(invalidArgument, request{Do: "compute", Handle: run})
	g.want(invalidArgument, request{Do: "unload", Handle: graph})
	graph = g.want(0, request{Do: "load_file", Name: "/" + tiny, Config: `{"ctx-size":64,"threads":1,"n-predict":3}`, Index: 6}).Handle
	run = g.want(0, request{Do: "init", Handle: graph}).Handle
	g.want(0, request{Do: "input", Handle: run, Data: "go"})
	g.want(0, request{Do: "compute", Handle: run})
	if got := g.want(0, request{Do: "output", Handle: run}).Data; got != " 1 2 3" {
		t.Errorf("of a model given as bytes: %q", got)
	}
	g.want(0, request{Do: "finalize", Handle: run})
	g.want(invalidArgument, request{Do: "compute", Handle: run})

	g.close()
	for _, said := range []string{"--nn-preload wrong is not name:GGML:AUTO:path", "--nn-preload onnx", broken + " could not be loaded: ", "/nonexistent/model.gguf: No such file"} {
		if n := strings.Count(g.stderr.String(), said); n != 1 {
			t.Errorf("%q was said %d times, not once:\n%s", said, n, g.stderr.String())
		}
	}
}

// The test of the plug-in's core, built with the address and undefined-behaviour sanitizers.
func TestCore(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), realtest.Need(t, "ASSISTANT_TEST_WASI_NN_HARNESS"), model(t, smollm2), model(t, minilm), model(t, tiny))
	cmd.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1", "UBSAN_OPTIONS=print_stacktrace=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// Without the plug-in WasmEdge says at once what is missing.
func TestNoPlugin(t *testing.T) {
	cmd := wasmedge(t)
	cmd.Env = append(os.Environ(), "WASMEDGE_PLUGIN_PATH="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "wasi_ephemeral_nn") {
		t.Errorf("%v:\n%s", err, out)
	}
}
