package memory

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"assistant/internal/enginetest"
	"assistant/internal/gguf"
	"assistant/internal/gguf/gguftest"
	"assistant/lifecycle/machine"
	"assistant/modeldir"
)

func TestMain(m *testing.M) {
	enginetest.MaybeRun()
	goleak.VerifyTestMain(m)
}

const gib = int64(1) << 30

// llama3 is the shape of Llama 3.1 8B: 32 layers, 8 heads of 128 for keys and values, 128,256 tokens.
func llama3() *gguftest.File {
	f := new(gguftest.File).Add("general.architecture", "llama").Add("llama.block_count", 32).Add("llama.embedding_length", 4096).
		Add("llama.feed_forward_length", 14336).Add("llama.attention.head_count", 32).Add("llama.attention.head_count_kv", 8).
		Add("llama.context_length", 131072).Add("tokenizer.ggml.tokens", make([]string, 128256)).
		Tensor("token_embd.weight", 300*mib)
	for i := range 32 {
		f.Tensor("blk."+itoa(i)+".ffn_up.weight", 100*mib).Tensor("blk."+itoa(i)+".attn_q.weight", 30*mib)
	}
	return f.Tensor("output_norm.weight", 16384).Tensor("output.weight", 410*mib)
}

func itoa(n int) string { return string(rune('0'+n/10)) + string(rune('0'+n%10)) }

func model(t *testing.T, f *gguftest.File) *modeldir.Model {
	t.Helper()
	path := f.Write(t, filepath.Join(t.TempDir(), "m.gguf"))
	return &modeldir.Model{Name: "m", Key: "m", Kind: modeldir.Chat, Engine: modeldir.EngineLlamaServer, ModelPath: path}
}

func estimate(t *testing.T, m *modeldir.Model, here Here) Need {
	t.Helper()
	n, err := Estimate(t.Context(), m, here)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEstimateOfAKnownShape(t *testing.T) {
	m := model(t, llama3())
	m.CtxSize = 8192
	n := estimate(t, m, Here{})
	if got, want := n.KV(), gib; got != want { // 2 × 32 × 8 × 128 × 8192 × 2, which llama.cpp prints as 1024.00 MiB
		t.Errorf("context %d, want %d", got, want)
	}
	if got, want := n.Weights(), int64(300+32*130+410)*mib+16384; got != want {
		t.Errorf("weights %d, want %d", got, want)
	}
	if n.Layers() != 33 || n.Source != Header || n.Context != 8192 {
		t.Errorf("%d layers, %s, %d tokens", n.Layers(), n.Source, n.Context)
	}
	hard0, soft0 := n.Host(0)
	hard33, soft33 := n.Host(33)
	if soft0 != n.Weights() || soft33 != 300*mib || hard0-hard33 != gib {
		t.Errorf("host %d and %d without, %d and %d with all layers on devices", hard0, soft0, hard33, soft33)
	}
	if n.Compute < 100*mib || n.Compute > 400*mib {
		t.Errorf("buffers %d", n.Compute)
	}
}

func TestContext(t *testing.T) {
	for name, c := range map[string]struct {
		ctx, slots int
		args       string
		want       int // tokens
	}{
		"asked for":               {8192, 0, "", 8192},
		"rounded up":              {1000, 0, "", 1024},
		"in args":                 {8192, 0, "-c 2048", 2048},
		"in args with =":          {8192, 0, "--ctx-size=2048", 2048},
		"over the slots":          {8192, 4, "", 8192},
		"rounded up in each slot": {1000, 3, "", 3 * 512},
		"trained":                 {0, 0, "", 131072},
		"trained, for each slot":  {0, 2, "", 262144},
		"trained, shared":         {0, 2, "--kv-unified", 131072},
		"slots in args":           {0, 2, "-np 3", 3 * 131072},
	} {
		t.Run(name, func(t *testing.T) {
			m := &modeldir.Model{Engine: modeldir.EngineLlamaServer, CtxSize: c.ctx, Concurrency: c.slots, Args: strings.Fields(c.args)}
			if got := settingsOf(m, headerOf(t, llama3())).context; got != c.want {
				t.Errorf("%d tokens, want %d", got, c.want)
			}
		})
	}
}

func TestCacheByShape(t *testing.T) {
	base := func(arch string) *gguftest.File {
		f := new(gguftest.File).Add("general.architecture", arch).Add(arch+".block_count", 6).Add(arch+".embedding_length", 1024).
			Add(arch+".attention.head_count", 8).Add(arch+".attention.key_length", 128).Add(arch+".attention.value_length", 128)
		return f
	}
	const token = 2 * 128 * 2 // bytes of one head: key and value, f16
	for name, c := range map[string]struct {
		f    *gguftest.File
		args string
		want int64
	}{
		"as many heads as for queries":   {base("llama"), "", 6 * 8 * token * 8192},
		"fewer heads":                    {base("llama").Add("llama.attention.head_count_kv", 2), "", 6 * 2 * token * 8192},
		"q8_0":                           {base("llama"), "-ctk q8_0 -ctv q8_0", 6 * 8 * token * 8192 * 34 / 64},
		"q4_0 values":                    {base("llama"), "--cache-type-v q4_0", 6 * 8 * 8192 * (256 + 128*18/32)},
		"heads differ":                   {base("llama").Add("llama.attention.head_count_kv", []int{1, 2, 0, 1, 2, 0}), "", 6 * token * 8192},
		"five of six look at a window":   {base("gemma3").Add("gemma3.attention.head_count_kv", 2).Add("gemma3.attention.sliding_window", 512), "", 2 * token * (8192 + 5*(4*512+512))},
		"window off":                     {base("gemma3").Add("gemma3.attention.head_count_kv", 2).Add("gemma3.attention.sliding_window", 512), "--swa-full", 2 * token * 6 * 8192},
		"the file says which":            {base("x").Add("x.attention.head_count_kv", 1).Add("x.attention.sliding_window", 256).Add("x.attention.sliding_window_pattern", []int{1, 0, 1, 0, 1, 0}), "-np 1", token * (3*8192 + 3*768)},
		"a window, but no pattern":       {base("x").Add("x.attention.head_count_kv", 1).Add("x.attention.sliding_window", 256), "", token * 6 * 8192},
		"one compressed key":             {base("deepseek2").Add("deepseek2.attention.head_count_kv", 1).Add("deepseek2.attention.key_length_mla", 192), "", 6 * 8192 * 256},
		"an encoder has none":            {base("bert").Add("bert.attention.causal", false), "", 0},
		"half share another's":           {base("gemma3n").Add("gemma3n.attention.shared_kv_layers", 3), "", 3 * 8 * token * 8192},
		"one in three is attention":      {base("q").Add("q.ssm.state_size", 16).Add("q.ssm.inner_size", 64).Add("q.ssm.conv_kernel", 4).Add("q.ssm.group_count", 1).Add("q.full_attention_interval", 3), "", 2*8*token*8192 + 4*4*4*(3*(64+32)+16*64)},
		"layers for drafts do not count": {base("d").Add("d.nextn_predict_layers", 1), "", 5 * 8 * token * 8192},
	} {
		t.Run(name, func(t *testing.T) {
			m := &modeldir.Model{Engine: modeldir.EngineLlamaServer, CtxSize: 8192, Args: strings.Fields(c.args)}
			h := headerOf(t, c.f)
			n, err := settingsOf(m, h).need(h)
			if err != nil {
				t.Fatal(err)
			}
			if got := n.KV(); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

func TestWhereWeightsGo(t *testing.T) {
	base := func() *gguftest.File {
		return new(gguftest.File).Add("general.architecture", "l").Add("l.block_count", 2).Add("l.embedding_length", 64).
			Tensor("token_embd.weight", 1000).Tensor("blk.0.ffn_up_exps.weight", 700).Tensor("blk.0.attn_q.weight", 100).
			Tensor("blk.1.ffn_up_exps.weight", 700).Tensor("blk.1.attn_q.weight", 100).Tensor("blk.2.nextn.weight", 50)
	}
	type weights struct{ Rest, Output, Block0, Block1, All int64 }
	for name, c := range map[string]struct {
		f    *gguftest.File
		args string
		want weights
	}{
		"an output of its own": {base().Tensor("output.weight", 400), "", weights{1000, 400, 800, 800, 3000}},
		"embeddings as output": {base(), "", weights{1000, 1000, 800, 800, 2600}},
		"experts on the host":  {base(), "--cpu-moe", weights{2400, 1000, 100, 100, 2600}},
		"one layer's experts":  {base(), "-ncmoe 1", weights{1700, 1000, 100, 800, 2600}},
	} {
		t.Run(name, func(t *testing.T) {
			h := headerOf(t, c.f)
			n, err := settingsOf(&modeldir.Model{Args: strings.Fields(c.args), CtxSize: 256}, h).need(h)
			if err != nil {
				t.Fatal(err)
			}
			got := weights{n.Rest.Weights, n.Output.Weights, n.Blocks[0].Weights, n.Blocks[1].Weights, n.Weights()}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if _, soft := n.Host(0); soft != c.want.All {
				t.Errorf("host %d, want %d", soft, c.want.All)
			}
		})
	}
}

func TestFilesBeside(t *testing.T) {
	m := model(t, llama3())
	m.CtxSize = 4096
	plain := estimate(t, m, Here{})
	projector := new(gguftest.File).Add("general.architecture", "clip").Tensor("v.weight", 500*mib).Write(t, filepath.Join(t.TempDir(), "mmproj.gguf"))
	m.Args = []string{"--mmproj", projector}
	if got := estimate(t, m, Here{}).Output.Weights - plain.Output.Weights; got < 500*mib || got > 501*mib {
		t.Errorf("the projector adds %d", got)
	}
	m.Args = []string{"--mmproj", projector, "--no-mmproj-offload"}
	if got := estimate(t, m, Here{}).Rest.Weights - plain.Rest.Weights; got < 500*mib || got > 501*mib {
		t.Errorf("the projector on the host adds %d", got)
	}
	m.Args = []string{"-md", m.ModelPath}
	if got := estimate(t, m, Here{}); got.Weights() != 2*plain.Weights() || got.KV() != 2*plain.KV() {
		t.Errorf("a draft model as large: weights %d, context %d", got.Weights(), got.KV())
	}
	m.Args = []string{"-md", "/no/such.gguf"}
	if _, err := Estimate(t.Context(), m, Here{}); err == nil {
		t.Error("a draft model that is not there: no error")
	}
}

func TestDeclaredWins(t *testing.T) {
	m := model(t, llama3())
	m.CtxSize, m.Memory = 8192, 3*gib
	n := estimate(t, m, Here{})
	if n.Source != Declared || n.all() != 3*gib || n.Layers() != 33 {
		t.Errorf("%s, %d in %d layers", n.Source, n.all(), n.Layers())
	}
	if got := Combine(n, Facts{HostHard: 99 * gib}); got.all() != 3*gib {
		t.Errorf("what was learnt made it %d", got.all())
	}
}

func TestOpaqueEngines(t *testing.T) {
	m := &modeldir.Model{Engine: modeldir.EngineCommand}
	if n := estimate(t, m, Here{}); n.Source != Unknown || n.all() != 0 {
		t.Errorf("nothing declared: %+v", n)
	}
	m.Memory = 8 * gib
	if n := estimate(t, m, Here{}); n.Process != 8*gib || n.Fixed != nil {
		t.Errorf("on the host: %+v", n)
	}
	m.Devices = []string{"CUDA1", "CUDA0"}
	m.TensorSplit = []float64{3, 1}
	if n := estimate(t, m, Here{}); len(n.Fixed) != 2 || n.Fixed[0] != (Share{"CUDA1", 6 * gib}) || n.Fixed[1] != (Share{"CUDA0", 2 * gib}) || n.Process != 0 {
		t.Errorf("on devices: %+v", n)
	}
}

func TestEstimateOfABadFile(t *testing.T) {
	m := model(t, llama3())
	if err := os.Truncate(m.ModelPath, 3000); err != nil {
		t.Fatal(err)
	}
	n, err := Estimate(t.Context(), m, Here{})
	if err == nil || n.Source != Unknown {
		t.Errorf("%+v, %v", n, err)
	}
	m.Memory = gib
	if n, err = Estimate(t.Context(), m, Here{}); err == nil || n.Source != Declared || n.Process != gib {
		t.Errorf("declared: %+v, %v", n, err)
	}
}

// A context nobody asked for shrinks until it fits, as with llama-server's --fit, and one that was asked for does not.
func TestContextFitsTheMachine(t *testing.T) {
	here := Here{Host: machine.Memory{Total: 12 * gib, Available: 12 * gib}}
	m := model(t, llama3()) // 16 GiB of context as it is trained
	n := estimate(t, m, here)
	if n.Context >= 131072 || n.Context < 32768 || n.Context%256 != 0 || n.all() > 12*gib || n.all() < 11*gib {
		t.Errorf("%d tokens, %s", n.Context, machine.GiB(n.all()))
	}
	here.Host.Total = 2 * gib
	if n = estimate(t, m, here); n.Context != 131072 { // hopeless: it is told with what it is trained for
		t.Errorf("%d tokens in a machine that never holds it", n.Context)
	}
	m.Memory = 8 * gib
	if n = estimate(t, m, Here{}); n.Context >= 32768 || n.Context < 16384 || n.all() != 8*gib {
		t.Errorf("%d tokens in a declared %s", n.Context, machine.GiB(n.all()))
	}
	m.Memory = 0
	here.Host.Total = 12 * gib
	m.CtxSize = 131072
	if n = estimate(t, m, here); n.Context != 131072 {
		t.Errorf("asked for 131072 tokens, got %d", n.Context)
	}
}

// tool puts a program beside a pretended llama-server.
func tool(t *testing.T, script string) Here {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "llama-fit-params"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return Here{LlamaServer: filepath.Join(dir, "llama-server")}
}

func TestEnginesOwnTool(t *testing.T) {
	m := model(t, llama3())
	m.CtxSize = 8192
	plain := estimate(t, m, Here{})
	args := filepath.Join(t.TempDir(), "args")
	here := tool(t, "echo \"$@\" >"+args+"\ncat <<'E'\nggml_cuda_init: found 1 CUDA devices:\nCUDA0 4570 2048 300 \nHost 300 0 24 \nE\n")
	n := estimate(t, m, here)
	if n.Source != Fit || n.KV() != 2*gib || n.Compute != 301*mib || n.DeviceCompute != 301*mib+driverBytes || n.Weights() != plain.Weights() {
		t.Errorf("%s, context %d, buffers %d and %d", n.Source, n.KV(), n.Compute, n.DeviceCompute)
	}
	b, _ := os.ReadFile(args)
	for _, want := range []string{"-m " + m.ModelPath, "-c 8192", "-np 4", "--kv-unified", "--fit-print on"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("asked with %q, want %q in it", b, want)
		}
	}
	for name, script := range map[string]string{"fails": "exit 1", "babbles": "echo CUDA0 x y z; echo Host -1 0 0", "says nothing": ""} {
		if got := estimate(t, m, tool(t, script)); got.Source != Header || got.KV() != plain.KV() {
			t.Errorf("a tool that %s: %s, %d", name, got.Source, got.KV())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := Estimate(ctx, m, tool(t, "sleep 60")); err != nil || n.Source != Header {
		t.Errorf("cancelled: %s, %v", n.Source, err)
	}
}

// TestWeightsThatTheProcessorsBackEndPacks: with AMX, a model of 98 MiB took 95 MiB more than was reserved for it.
func TestWeightsThatTheProcessorsBackEndPacks(t *testing.T) {
	const f16 = 1
	f := new(gguftest.File).Add("general.architecture", "l").Add("l.block_count", 1).Add("l.embedding_length", 64)
	f.Tensors = []gguf.Tensor{
		{Name: "token_embd.weight", Kind: q80, Bytes: 400},
		{Name: "blk.0.attn_q.weight", Kind: q4K, Bytes: 200},
		{Name: "blk.0.attn_norm.weight", Bytes: 10},
		{Name: "blk.0.ffn_up.weight", Kind: f16, Bytes: 50},
	}
	packed := settings{context: 256, slots: 1, streams: 1, mapped: true, packs: func(kind uint32) bool { return kind == q80 || kind == q4K }}
	need := func(s settings) (hard, soft int64) {
		n, err := s.need(headerOf(t, f))
		if err != nil {
			t.Fatal(err)
		}
		return n.Host(0)
	}
	plain := packed
	plain.packs = nil
	hard, soft := need(plain)
	if h, s := need(packed); h-hard != 600 || s != soft { // the embeddings are the output as well
		t.Errorf("mapped: %d more that cannot be paged out, want 600; %d mapped, want %d", h-hard, s, soft)
	}
	plain.mapped, packed.mapped = false, false
	hard, _ = need(plain)
	if h, _ := need(packed); h-hard != 400 {
		t.Errorf("not mapped: %d more, want 400", h-hard)
	}
}
