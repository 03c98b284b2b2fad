package caddymodule

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write golden files anew")

var ofOurs = cmp.Options{cmpopts.IgnoreUnexported(App{}, Handler{}), cmpopts.EquateEmpty()}

func TestGlobalOption(t *testing.T) {
	duration := func(d time.Duration) caddy.Duration { return caddy.Duration(d) }
	for name, c := range map[string]struct {
		in   string
		want App
		err  string // part of it; "" = none
	}{
		"nothing":       {in: ``},
		"empty block":   {in: `{}`, err: "wrong argument count"},
		"empty":         {in: "{\n}"},
		"argument":      {in: `x`, err: "wrong argument count"},
		"unknown":       {in: "{\n bogus 1\n}", err: `no option "bogus"`},
		"config_dir":    {in: "{\n config_dir ./models\n}", want: App{ConfigDir: "./models"}},
		"no directory":  {in: "{\n config_dir\n}", err: "wrong argument count"},
		"two":           {in: "{\n config_dir a b\n}", err: "wrong argument count"},
		"twice":         {in: "{\n config_dir a\n config_dir a\n}", err: "given twice"},
		"block":         {in: "{\n config_dir a {\n b\n }\n}", err: "takes no block"},
		"state_dir":     {in: "{\n state_dir /var/lib/x\n}", want: App{StateDir: "/var/lib/x"}},
		"config":        {in: "{\n config /etc/x/config.toml\n}", want: App{Config: "/etc/x/config.toml"}},
		"max_instances": {in: "{\n max_instances 3\n}", want: App{MaxInstances: 3}},
		"none at all":   {in: "{\n max_instances 0\n}", err: "1 or more"},
		"no number":     {in: "{\n max_instances many\n}", err: "1 or more"},
		"max_load":      {in: "{\n max_load 1.5\n}", want: App{MaxLoad: ptr(1.5)}},
		"load off":      {in: "{\n max_load 0\n}", want: App{MaxLoad: ptr(0.0)}},
		"below 0":       {in: "{\n max_load -1\n}", err: "0 or more"},
		"NaN":           {in: "{\n max_load NaN\n}", err: "0 or more"},
		"infinite":      {in: "{\n max_load Inf\n}", err: "0 or more"},
		"idle_timeout":  {in: "{\n idle_timeout 5m\n}", want: App{IdleTimeout: ptr(duration(5 * time.Minute))}},
		"days":          {in: "{\n idle_timeout 2d\n}", want: App{IdleTimeout: ptr(duration(48 * time.Hour))}},
		"never":         {in: "{\n idle_timeout 0\n}", want: App{IdleTimeout: ptr(duration(0))}},
		"past":          {in: "{\n idle_timeout -5m\n}", err: "give a duration"},
		"no unit":       {in: "{\n idle_timeout 5\n}", err: "give a duration"},
		"start_timeout": {in: "{\n start_timeout 10m\n}", want: App{StartTimeout: duration(10 * time.Minute)}},
		"no start":      {in: "{\n start_timeout 0s\n}", err: "give a duration"},
		"max_wait":      {in: "{\n max_wait 20s\n}", want: App{MaxWait: duration(20 * time.Second)}},
		"no wait":       {in: "{\n max_wait 0s\n}", err: "give a duration"},
		"queue":         {in: "{\n queue 5\n}", want: App{Queue: 5}},
		"queue, total":  {in: "{\n queue 5 50\n}", want: App{Queue: 5, QueueTotal: 50}},
		"queue 0":       {in: "{\n queue 0\n}", err: "1 or more"},
		"total 0":       {in: "{\n queue 5 0\n}", err: "1 or more"},
		"queue of 3":    {in: "{\n queue 5 50 500\n}", err: "wrong argument count"},
		"client":        {in: "{\n queue_client 5\n}", want: App{QueueClient: 5}},
		"client, bytes": {in: "{\n queue_client 5 1MiB\n}", want: App{QueueClient: 5, QueueBytesClient: 1 << 20}},
		"client 0":      {in: "{\n queue_client 0\n}", err: "1 or more"},
		"bytes":         {in: "{\n queue_bytes 1MiB 2MiB\n}", want: App{QueueBytes: 1 << 20, QueueBytesTotal: 2 << 20}},
		"no bytes":      {in: "{\n queue_bytes 0\n}", err: "give a size"},
		"keep_last":     {in: "{\n keep_last on\n}", want: App{KeepLast: true}},
		"keep what":     {in: "{\n keep_last 3\n}", err: "on or off"},
		"predict":       {in: "{\n predict on\n}", want: App{Predict: true}},
		"predict off":   {in: "{\n predict off\n}"},
		"context_disk":  {in: "{\n context_disk 1GiB\n}", want: App{ContextDisk: ptr(int64(1 << 30))}},
		"no contexts":   {in: "{\n context_disk 0\n}", want: App{ContextDisk: ptr(int64(0))}},
		"insecure":      {in: "{\n insecure on\n}", want: App{Insecure: true}},
		"keys":          {in: "{\n keys ./keys.toml\n}", want: App{Keys: "./keys.toml"}},
		"identity":      {in: "{\n identity {http.auth.user.id}\n}", want: App{Identity: "{http.auth.user.id}"}},
		"max_body":      {in: "{\n max_body 1MiB\n}", want: App{MaxBody: 1 << 20}},
		"no body":       {in: "{\n max_body 0\n}", err: "give a size"},
		"no size":       {in: "{\n max_body big\n}", err: "give a size"},
		"exabytes":      {in: "{\n max_body 8EiB\n}", err: "give a size"},
		"open":          {in: "{\n max_body 1MiB", want: App{MaxBody: 1 << 20}}, // the Caddyfile's own parser refuses it
	} {
		t.Run(name, func(t *testing.T) {
			var got App
			err := got.UnmarshalCaddyfile(caddyfile.NewTestDispenser("assistant " + c.in))
			checkParsed(t, got, c.want, err, c.err)
		})
	}
}

func TestDirective(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want Handler
		err  string
	}{
		"nothing":        {in: ``},
		"argument":       {in: `x`, err: "wrong argument count"},
		"unknown":        {in: "{\n bogus 1\n}", err: `no option "bogus"`},
		"transport":      {in: "{\n transport std\n}", want: Handler{Transport: "std"}},
		"lean":           {in: "{\n transport lean\n}", want: Handler{Transport: "lean"}},
		"pigeon":         {in: "{\n transport pigeon\n}", err: "choose lean or std"},
		"none":           {in: "{\n transport\n}", err: "wrong argument count"},
		"both":           {in: "{\n transport lean std\n}", err: "wrong argument count"},
		"twice":          {in: "{\n transport std\n transport std\n}", err: "given twice"},
		"keep_alive":     {in: "{\n keep_alive 5s\n}", want: Handler{KeepAlive: caddy.Duration(5 * time.Second)}},
		"keep nothing":   {in: "{\n keep_alive 0\n}", err: "give a duration"},
		"keep what":      {in: "{\n keep_alive\n}", err: "wrong argument count"},
		"metrics":        {in: "{\n metrics\n}", want: Handler{Metrics: "/metrics"}},
		"metrics path":   {in: "{\n metrics /m\n}", want: Handler{Metrics: "/m"}},
		"metrics paths":  {in: "{\n metrics /m /n\n}", err: "wrong argument count"},
		"metrics no /":   {in: "{\n metrics m\n}", err: "begins with /"},
		"origins":        {in: "{\n cors_origins https://a.example https://*.b.example:8443\n}", want: Handler{CORSOrigins: []string{"https://a.example", "https://*.b.example:8443"}}},
		"all origins":    {in: "{\n cors_origins *\n}", want: Handler{CORSOrigins: []string{"*"}}},
		"no origins":     {in: "{\n cors_origins\n}", err: "wrong argument count"},
		"a host":         {in: "{\n cors_origins a.example\n}", err: "give origins such as"},
		"a page":         {in: "{\n cors_origins https://a.example/\n}", err: "give origins such as"},
		"block":          {in: "{\n transport std {\n a\n }\n}", err: "takes no block"},
		"metrics, block": {in: "{\n metrics {\n a\n }\n}", err: "takes no block"},
	} {
		t.Run(name, func(t *testing.T) {
			var got Handler
			err := got.UnmarshalCaddyfile(caddyfile.NewTestDispenser("assistant " + c.in))
			checkParsed(t, got, c.want, err, c.err)
		})
	}
}

func checkParsed[T any](t *testing.T, got, want T, err error, wantErr string) {
	t.Helper()
	switch {
	case wantErr == "" && err != nil:
		t.Errorf("error: %v", err)
	case wantErr == "":
		if diff := cmp.Diff(want, got, ofOurs); diff != "" {
			t.Errorf("- want, + got:\n%s", diff)
		}
	case err == nil:
		t.Errorf("no error, want %q", wantErr)
	case !strings.Contains(err.Error(), wantErr):
		t.Errorf("error %q, want %q in it", err, wantErr)
	}
}

// adapt adapts a Caddyfile as "caddy adapt" does, to readable JSON or an error.
func adapt(tb testing.TB, text string) (string, error) {
	tb.Helper()
	got, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	return indent(tb, got), nil
}

// TestAdapt compares what Caddyfiles become with golden files: a Caddyfile, a line of dashes, and JSON or a part of an error.
func TestAdapt(t *testing.T) {
	const line = "----------\n"
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want, ok := strings.Cut(string(golden), line)
			if !ok && !*update {
				t.Fatalf("%s has no line of dashes", file)
			}
			got, err := adapt(t, in)
			want = strings.TrimSpace(want)
			switch {
			case *update && (err == nil || want == ""):
				if err != nil {
					got = err.Error()
				}
				if err := os.WriteFile(file, []byte(in+line+got+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			case err != nil && (strings.HasPrefix(want, "{") || !strings.Contains(err.Error(), want)):
				t.Errorf("error %v, want\n%s", err, want)
			case err == nil:
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("- want, + got:\n%s", diff)
				}
			}
			asTyped := filepath.Base(file) == "issue.caddyfiletest" // with its columns, as others will type it
			if formatted := string(caddyfile.Format([]byte(in))); !asTyped && formatted != in {
				t.Errorf("not formatted (- as it should be):\n%s", cmp.Diff(formatted, in))
			}
		})
	}
}

// The example that comes with the project works as it stands.
func TestExampleCaddyfile(t *testing.T) {
	text, err := os.ReadFile("../Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	if formatted := caddyfile.Format(text); string(formatted) != string(text) {
		t.Errorf("not formatted (- as it should be):\n%s", cmp.Diff(string(formatted), string(text)))
	}
	got, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v, warnings %v", err, warnings)
	}
	t.Chdir(t.TempDir()) // its paths are relative
	mustValidate(t, got)
}

// mustValidate does what "caddy validate" does.
func mustValidate(t *testing.T, config []byte) {
	t.Helper()
	var cfg caddy.Config
	if err := json.Unmarshal(config, &cfg); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&cfg); err != nil {
		t.Errorf("validate: %v", err)
	}
	if _, running := runtimes.References(runtimeKey); running {
		t.Error("validation leaves a runtime")
	}
}

// Every option survives the way to JSON and back.
func TestJSONRoundTrip(t *testing.T) {
	app := App{
		ConfigDir: "a", Config: "b", StateDir: "c", MaxInstances: 1, MaxLoad: ptr(0.0), IdleTimeout: ptr(caddy.Duration(0)),
		StartTimeout: 2, MaxWait: 3, Queue: 4, QueueTotal: 5, MaxBody: 6, QueueClient: 7, QueueBytes: 8, QueueBytesTotal: 9,
		QueueBytesClient: 10, KeepLast: true, Predict: true, ContextDisk: ptr(int64(0)), Keys: "k", Identity: "i", Insecure: true,
	}
	handler := Handler{Transport: "std", KeepAlive: 1, Metrics: "/m", CORSOrigins: []string{"o"}}
	var app2 App
	var handler2 Handler
	for _, pair := range [][2]any{{app, &app2}, {handler, &handler2}} {
		b, err := json.Marshal(pair[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := caddy.StrictUnmarshalJSON(b, pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(app, app2, ofOurs); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(handler, handler2, ofOurs); diff != "" {
		t.Error(diff)
	}
}

// Options that JSON gives are judged as those of a Caddyfile are.
func TestValidate(t *testing.T) {
	for name, config := range map[string]string{
		"max_instances": `{"apps":{"assistant":{"max_instances":-1}}}`,
		"max_load":      `{"apps":{"assistant":{"max_load":-0.5}}}`,
		"idle_timeout":  `{"apps":{"assistant":{"idle_timeout":-1}}}`,
		"start_timeout": `{"apps":{"assistant":{"start_timeout":-1}}}`,
		"max_wait":      `{"apps":{"assistant":{"max_wait":-1}}}`,
		"queue":         `{"apps":{"assistant":{"queue":-1}}}`,
		"queue_total":   `{"apps":{"assistant":{"queue_total":-1}}}`,
		"queue_client":  `{"apps":{"assistant":{"queue_client":-1}}}`,
		"queue_bytes":   `{"apps":{"assistant":{"queue_bytes":-1}}}`,
		"context_disk":  `{"apps":{"assistant":{"context_disk":-1}}}`,
		"max_body":      `{"apps":{"assistant":{"max_body":-1}}}`,
		"bogus":         `{"apps":{"assistant":{"bogus":1}}}`,
		"transport":     `{"apps":{"http":{"servers":{"s":{"routes":[{"handle":[{"handler":"assistant","transport":"x"}]}]}}}}}`,
		"metrics":       `{"apps":{"http":{"servers":{"s":{"routes":[{"handle":[{"handler":"assistant","metrics":"x"}]}]}}}}}`,
		"cors_origins":  `{"apps":{"http":{"servers":{"s":{"routes":[{"handle":[{"handler":"assistant","cors_origins":["x"]}]}]}}}}}`,
		"keep_alive":    `{"apps":{"http":{"servers":{"s":{"routes":[{"handle":[{"handler":"assistant","keep_alive":-1}]}]}}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			var cfg caddy.Config
			if err := json.Unmarshal([]byte(config), &cfg); err != nil {
				t.Fatal(err)
			}
			if err := caddy.Validate(&cfg); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v, want one that names %s", err, name)
			}
			if _, running := runtimes.References(runtimeKey); running {
				t.Error("a rejected configuration leaves a runtime")
			}
		})
	}
}

// seeds gives a fuzzer the inputs of the golden files and some more.
func seeds(f *testing.F) {
	f.Helper()
	files, _ := filepath.Glob("testdata/adapt/*.caddyfiletest")
	block := regexp.MustCompile(`(?s)assistant \{.*?\n\t+\}`)
	for _, file := range files {
		b, _ := os.ReadFile(file)
		for _, m := range block.FindAllString(string(b), -1) {
			f.Add(m)
		}
	}
	for _, s := range []string{"", "{", "}", "{\n", "{\n}", "{ }", "{\n queue\n}", "{\n metrics {\n}\n}", "{\n max_body 9999999999999999EiB\n}", "{\n max_load 1e999\n}", "\"", "{\n idle_timeout 99999999999d\n}"} {
		f.Add("assistant " + s)
	}
}

// dispense makes a dispenser of fuzzed text; nil if Caddy's lexer refuses it. (NewTestDispenser ends the process then.)
func dispense(text string) *caddyfile.Dispenser {
	tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
	if err != nil {
		return nil
	}
	return caddyfile.NewDispenser(tokens)
}

func FuzzGlobalOption(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		var a App
		d := dispense(text)
		if d == nil || a.UnmarshalCaddyfile(d) != nil {
			return
		}
		b, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back App
		if err := caddy.StrictUnmarshalJSON(b, &back); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		if a.MaxInstances < 0 || a.Queue < 0 || a.MaxBody < 0 || a.MaxWait < 0 || a.StartTimeout < 0 ||
			a.IdleTimeout != nil && *a.IdleTimeout < 0 || a.MaxLoad != nil && !(*a.MaxLoad >= 0) {
			t.Errorf("accepted what cannot be: %s", b)
		}
	})
}

func FuzzDirective(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		var h Handler
		d := dispense(text)
		if d == nil || h.UnmarshalCaddyfile(d) != nil {
			return
		}
		h.Transport = first(h.Transport, transportLean)
		if err := h.Validate(); err != nil {
			t.Errorf("the parser accepts what validation does not: %v", err)
		}
	})
}
