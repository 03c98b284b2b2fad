package source

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const aSum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Ref
		full string // as String writes it; "" = as it came
	}{
		{"hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M", Ref{Kind: HuggingFace, Repo: "Qwen/Qwen2.5-0.5B-Instruct-GGUF", Pick: "Q4_K_M"}, ""},
		{"hf:a/b", Ref{Kind: HuggingFace, Repo: "a/b"}, ""},
		{" hf:a/b@refs/pr/1 ", Ref{Kind: HuggingFace, Repo: "a/b", Revision: "refs/pr/1"}, "hf:a/b@refs/pr/1"},
		{
			"HF:a/b:sub/m-Q8_0.gguf@v1",
			Ref{Kind: HuggingFace, Repo: "a/b", Pick: "sub/m-Q8_0.gguf", Revision: "v1"},
			"hf:a/b:sub/m-Q8_0.gguf@v1",
		},
		{
			"ggml-org/gemma-3-4b-it-GGUF:Q8_0",
			Ref{Kind: HuggingFace, Repo: "ggml-org/gemma-3-4b-it-GGUF", Pick: "Q8_0"},
			"hf:ggml-org/gemma-3-4b-it-GGUF:Q8_0",
		},
		{"hf.co/a/b:Q8_0", Ref{Kind: HuggingFace, Repo: "a/b", Pick: "Q8_0"}, "hf:a/b:Q8_0"},
		{"https://huggingface.co/a/b", Ref{Kind: HuggingFace, Repo: "a/b"}, "hf:a/b"},
		{"https://huggingface.co/a/b/tree/main", Ref{Kind: HuggingFace, Repo: "a/b"}, "hf:a/b"},
		{
			"https://huggingface.co/a/b/resolve/main/d/m%20x.gguf?download=true",
			Ref{Kind: HuggingFace, Repo: "a/b", Pick: "d/m x.gguf"},
			"hf:a/b:d/m x.gguf",
		},
		{
			"https://huggingface.co/a/b/blob/refs%2Fpr%2F1/m.gguf",
			Ref{Kind: HuggingFace, Repo: "a/b", Pick: "m.gguf", Revision: "refs/pr/1"},
			"hf:a/b:m.gguf@refs/pr/1",
		},
		{"https://huggingface.co/a/b/resolve/main/m@2.gguf", Ref{Kind: HuggingFace, Repo: "a/b", Pick: "m@2.gguf"}, ""},
		{
			"https://huggingface.co/a/b/resolve/main/m.gguf#sha256=" + aSum,
			Ref{Kind: HuggingFace, Repo: "a/b", Pick: "m.gguf", SHA256: []string{aSum}},
			"",
		},

		{"ollama:qwen2.5:0.5b", Ref{Kind: Ollama, Repo: "library/qwen2.5", Pick: "0.5b"}, ""},
		{"ollama:qwen2.5", Ref{Kind: Ollama, Repo: "library/qwen2.5", Pick: "latest"}, "ollama:qwen2.5:latest"},
		{"ollama:jo/model", Ref{Kind: Ollama, Repo: "jo/model", Pick: "latest"}, "ollama:jo/model:latest"},
		{"ollama:reg.example/jo/m:t", Ref{Kind: Ollama, Host: "reg.example", Repo: "jo/m", Pick: "t"}, ""},
		{"ollama:https://reg.example/jo/m:t", Ref{Kind: Ollama, Host: "reg.example", Repo: "jo/m", Pick: "t"}, "ollama:reg.example/jo/m:t"},
		{
			"ollama:localhost:5000/m",
			Ref{Kind: Ollama, Host: "localhost:5000", Repo: "library/m", Pick: "latest"},
			"ollama:localhost:5000/library/m:latest",
		},
		{"ollama:http://reg.example:80/jo/m:t", Ref{Kind: Ollama, Host: "http://reg.example:80", Repo: "jo/m", Pick: "t"}, ""},

		{"oci:ghcr.io/o/r:t", Ref{Kind: OCI, Host: "ghcr.io", Repo: "o/r", Pick: "t"}, ""},
		{"oci:localhost:5000/r", Ref{Kind: OCI, Host: "localhost:5000", Repo: "r", Pick: "latest"}, "oci:localhost:5000/r:latest"},
		{
			"oci:ai/smollm2:135M-Q4_0",
			Ref{Kind: OCI, Host: "docker.io", Repo: "ai/smollm2", Pick: "135M-Q4_0"},
			"oci:docker.io/ai/smollm2:135M-Q4_0",
		},
		{
			"oci://ghcr.io/o/r@sha256:" + aSum,
			Ref{Kind: OCI, Host: "ghcr.io", Repo: "o/r", Pick: "sha256:" + aSum},
			"oci:ghcr.io/o/r@sha256:" + aSum,
		},

		{"https://h.example/x.gguf?a=b", Ref{Kind: Web, URL: "https://h.example/x.gguf?a=b"}, ""},
		{
			"https://h.example/x.gguf#sha256=" + strings.ToUpper(aSum),
			Ref{Kind: Web, URL: "https://h.example/x.gguf", SHA256: []string{aSum}},
			"https://h.example/x.gguf#sha256=" + aSum,
		},
		{"http://127.0.0.1:8/x.gguf", Ref{Kind: Web, URL: "http://127.0.0.1:8/x.gguf"}, ""},
		{"http://h.example/x.gguf#sha256=" + aSum, Ref{Kind: Web, URL: "http://h.example/x.gguf", SHA256: []string{aSum}}, ""},

		{"file:/m/x.gguf", Ref{Kind: Local, Path: "/m/x.gguf"}, ""},
		{"file:m/x.gguf", Ref{Kind: Local, Path: "m/x.gguf"}, ""},
		{"file:///m/x%20y.gguf", Ref{Kind: Local, Path: "/m/x y.gguf"}, "file:/m/x y.gguf"},
	} {
		got, err := Parse(c.in)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.in, d)
		}
		if c.full == "" {
			c.full = c.in
		}
		if got.String() != c.full {
			t.Errorf("%s is written as %s, want %s", c.in, got, c.full)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for in, remedy := range map[string]string{
		"":                                    "write hf:",
		"hf:":                                 "OWNER/REPO",
		"hf:a":                                "OWNER/REPO",
		"hf:a/b/c":                            "OWNER/REPO",
		"hf:a/b:":                             "after its last sign",
		"hf:a/b@":                             "after its last sign",
		"hf:a/b@main:Q4":                      "REPO:QUANTISATION@REVISION",
		"hf:../b":                             `".."`,
		"hf:a/b:../../x.gguf":                 `".."`,
		"hf:a/b@../x":                         "revision",
		"hf:a/b:x\x00.gguf":                   "control",
		"qwen2.5:0.5b":                        "ollama:qwen2.5:0.5b",
		"models/x.gguf":                       "file:",
		"./x":                                 "file:",
		"/x":                                  "file:",
		`C:\models\x.gguf`:                    "file:",
		"ftp://h/x.gguf":                      "write hf:",
		"ollama:":                             "ollama:NAME",
		"ollama:a/b/c/d":                      "slashes",
		"ollama:..:x":                         "no name",
		"ollama:m:":                           "no name",
		"ollama:http://h.example":             "names no model",
		"ollama:u:p@h.example/a/b":            "host",
		"oci:x":                               "HOST/REPO",
		"oci:ghcr.io/UPPER/x:t":               "reference",
		"oci:ghcr.io/o/r@sha512:" + aSum:      "OCI",
		"https://":                            "address",
		"https://h.example/":                  "names no file",
		"https://h.example/x.gguf#md5=1":      "#sha256=HEX",
		"https://h.example/x.gguf#sha256=1":   "64",
		"https://u:p@h.example/x.gguf":        "password",
		"http://h.example/x.gguf":             "#sha256=HEX",
		"https://h.example/%2e%2e":            `".."`,
		"https://h.example/a%5Cb.gguf":        "separator",
		"https://huggingface.co/a":            "repository",
		"https://huggingface.co/a/b/tree/m/d": "directory",
		"https://huggingface.co/datasets/a/b": "model",
		"https://huggingface.co/a/b#sha256=" + aSum: "names no file",
		"file:":                             "file:PATH",
		"file://host/x":                     "another machine",
		"hf:a/" + strings.Repeat("b", 9000): "longer",
	} {
		ref, err := Parse(in)
		if err == nil {
			t.Errorf("%q was taken for %+v", in, ref)
		} else if !strings.Contains(err.Error(), remedy) {
			t.Errorf("%q: the error does not say %q: %v", in, remedy, err)
		}
	}
}

// FuzzParse: what is understood is written in a form that means the same, and never names a file outside.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"hf:a/b:Q4_K_M@main", "a/b:Q8_0", "hf.co/a/b", "https://huggingface.co/a/b/resolve/main/x.gguf#sha256=" + aSum, "ollama:http://h:1/a/b:c",
		"oci:ghcr.io/o/r@sha256:" + aSum, "https://h/x-00001-of-00002.gguf?q=1#sha256=" + aSum + "," + aSum, "file:///x", "file:a b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(ref.String())
		if err != nil {
			t.Fatalf("%q is written as %q, which is refused: %v", s, ref, err)
		}
		if d := cmp.Diff(ref, again); d != "" {
			t.Fatalf("%q is written as %q, which means something else:\n%s", s, ref, d)
		}
		if ref.Kind == Web {
			if list, err := partsOf(ref.URL); err == nil && len(list) > maxParts {
				t.Fatalf("%q stands for %d files", s, len(list))
			}
		}
		for part := range strings.SplitSeq(ref.Repo+"/"+ref.Pick, "/") {
			if part == ".." {
				t.Fatalf("%q leads elsewhere: %+v", s, ref)
			}
		}
	})
}
