package source

import (
	"strings"
	"testing"
)

func TestReadName(t *testing.T) {
	for _, c := range []struct {
		path, label, stem string
		part, parts       int
	}{
		{"qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M", "qwen2.5-0.5b-instruct-", 1, 1},
		{"qwen2.5-0.5b-instruct-fp16.gguf", "F16", "qwen2.5-0.5b-instruct-", 1, 1},
		{"llama-2-7b.Q4_K_M.gguf", "Q4_K_M", "llama-2-7b.", 1, 1},
		{"llama-2-7b_Q4_K_M.gguf", "Q4_K_M", "llama-2-7b_", 1, 1},
		{"m-IQ4_XS.gguf", "IQ4_XS", "m-", 1, 1},
		{"m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL", "m-", 1, 1},
		{"m.i1-IQ3_XXS.gguf", "I1-IQ3_XXS", "m.", 1, 1},
		{"m-MXFP4_MOE.gguf", "MXFP4_MOE", "m-", 1, 1},
		{"m-BF16-Q8_0.gguf", "Q8_0", "m-BF16-", 1, 1},
		{"Q8_0/m-Q8_0-00002-of-00003.gguf", "Q8_0", "m-", 2, 3},
		{"Q8_0/m-00002-of-00003.gguf", "Q8_0", "m", 2, 3},
		{"m-00003-of-00002.gguf", "", "m-00003-of-00002", 1, 1},
		{"model.gguf", "", "model", 1, 1},
	} {
		n := readName(c.path)
		if n.label != c.label || n.stem != c.stem || n.part != c.part || n.parts != c.parts {
			t.Errorf("%s: got %+v, want %+v", c.path, n, c)
		}
	}
}

func TestModelName(t *testing.T) {
	for in, want := range map[string]string{
		"qwen2.5-0.5b-instruct-q4_k_m.gguf":       "qwen2.5-0.5b-instruct",
		"Q8_0/Big Model-Q8_0-00001-of-00003.gguf": "big-model",
		"Qwen2.5-0.5B-Instruct-GGUF":              "qwen2.5-0.5b-instruct",
		"m.i1-IQ3_XXS.gguf":                       "m",
		"..--__":                                  "",
		"模型-Q4_0.gguf":                            "",
		"a/../b/Model.bin":                        "model.bin",
	} {
		if got := modelName(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func entries(sizes map[string]int64) []entry {
	var all []entry
	for p, s := range sizes {
		all = append(all, entry{path: p, size: s})
	}
	return all
}

const gb = 1 << 30

var manyQuants = entries(map[string]int64{
	"m-IQ4_K_M.gguf": 4 * gb, "m-Q4_K_M.gguf": 5 * gb, "m-Q8_0.gguf": 8 * gb, "m-F16.gguf": 16 * gb, "m-Q2_K.gguf": 3 * gb,
	"m-UD-Q3_K_XL.gguf": 4 * gb, "mmproj-F16.gguf": gb, "mmproj-BF16.gguf": gb, "mmproj-F32.gguf": 2 * gb, "m-imatrix.gguf": 1,
	"m.imatrix_Q4_K_M.gguf": 1, "mtp-m-Q4_K_M.gguf": 1, "m-draft-Q4_K_M.gguf": gb, "README.md": 1,
	"Q6_K/m-Q6_K-00001-of-00002.gguf": 3 * gb, "Q6_K/m-Q6_K-00002-of-00002.gguf": 3 * gb,
	"Q5_K_M/m-Q5_K_M-00001-of-00002.gguf": 3 * gb,
})

func TestPick(t *testing.T) {
	for _, c := range []struct {
		name, want string
		memory     int64
		first      string // of the files; or, in brackets, what the error says
	}{
		{"default", "", 0, "m-Q4_K_M.gguf"},
		{"by name", "q4_k_m", 0, "m-Q4_K_M.gguf"},
		{"another name that holds it", "IQ4_K_M", 0, "m-IQ4_K_M.gguf"},
		{"FP16 for F16", "FP16", 0, "m-F16.gguf"},
		{"without the prefix", "Q3_K_XL", 0, "m-UD-Q3_K_XL.gguf"},
		{"with the prefix", "ud-q3_k_xl", 0, "m-UD-Q3_K_XL.gguf"},
		{"split", "Q6_K", 0, "Q6_K/m-Q6_K-00001-of-00002.gguf"},
		{"by file", "m-draft-Q4_K_M.gguf", 0, "m-draft-Q4_K_M.gguf"},
		{"by another part", "m-Q6_K-00002-of-00002.gguf", 0, "Q6_K/m-Q6_K-00001-of-00002.gguf"},
		{"a part is missing", "Q5_K_M", 0, "(number 2)"},
		{"not there", "Q4_K", 0, "(Q4_K_M (5.4 GB))"},
		{"much memory: no more than 8 bits", "", 100 * gb, "m-Q8_0.gguf"},
		{"8 GB", "", 8 * gb, "Q6_K/m-Q6_K-00001-of-00002.gguf"},
		{"6 GB", "", 6*gb + gb/8, "m-Q4_K_M.gguf"},
		{"4 GB", "", 4 * gb, "m-Q2_K.gguf"},
		{"too little", "", gb, "(fits into 1.0 GiB)"},
		{"too little, and named", "Q8_0", gb, "m-Q8_0.gguf"},
	} {
		v, err := pick(variants(manyQuants), c.want, c.memory)
		if says, ok := strings.CutPrefix(c.first, "("); ok {
			if says = strings.TrimSuffix(says, ")"); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: got %v, %v; want an error with %q", c.name, v.files, err, says)
			}
			continue
		}
		if err != nil || v.files[0].path != c.first {
			t.Errorf("%s: got %v, %v; want %s", c.name, v.files, err, c.first)
		}
	}
}

func TestPickOfSeveralModelsAsks(t *testing.T) {
	list := variants(entries(map[string]int64{"a-Q4_K_M.gguf": 1, "b-Q4_K_M.gguf": 1}))
	if _, err := pick(list, "", 0); err == nil || !strings.Contains(err.Error(), "a-Q4_K_M.gguf, b-Q4_K_M.gguf") {
		t.Errorf("got %v", err)
	}
	if v, err := pick(list, "b-q4_k_m", 0); err != nil || v.files[0].path != "b-Q4_K_M.gguf" {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestPickTakesADraftAlone(t *testing.T) {
	list := variants(entries(map[string]int64{"Small-DRAFT-0.5B-Q4_K_M.gguf": 1, "Small-DRAFT-0.5B-Q8_0.gguf": 2}))
	if v, err := pick(list, "", 0); err != nil || v.label != "Q4_K_M" {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestProjector(t *testing.T) {
	all := append(entries(map[string]int64{
		"v/mmproj-m-Q8_0.gguf": 1, "v/m-Q8_0.gguf": 1, "v/deep/m-Q4_0.gguf": 1, "other/mmproj-x.gguf": 1, "w/mmproj-F32.gguf": 1,
	}), manyQuants...)
	for p, want := range map[string]string{
		"m-Q4_K_M.gguf":      "mmproj-F16.gguf",   // not BF16, nor F32
		"w/m-F16.gguf":       "w/mmproj-F32.gguf", // the nearest
		"v/m-Q8_0.gguf":      "v/mmproj-m-Q8_0.gguf",
		"v/deep/m-Q4_0.gguf": "v/mmproj-m-Q8_0.gguf",
	} {
		got, ok := projectorOf(all, variant{nameParts: readName(p), files: []entry{{path: p}}})
		if !ok || got.path != want {
			t.Errorf("%s: got %q, want %q", p, got.path, want)
		}
	}
	if got, ok := projectorOf(entries(map[string]int64{"x/mmproj.gguf": 1}), variant{files: []entry{{path: "m.gguf"}}}); ok {
		t.Errorf("took %s, of another directory", got.path)
	}
}
