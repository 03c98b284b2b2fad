package modeldir

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var commentedKey = regexp.MustCompile(`(?m)^#([a-z_]+ = )`)

// uncommented is the default model file with all its keys in use, but for the one that goes in place of another.
func uncommented() string {
	all := commentedKey.ReplaceAllString(string(DefaultModelTOML()), "$1")
	return strings.Replace(all, "\nmodel_source = ", "\n#model_source = ", 1)
}

func TestDefaultModelTOML(t *testing.T) {
	got, err := ParseModel(testFile, DefaultModelTOML())
	if err != nil {
		t.Fatal(err)
	}
	want := &Model{
		Name: "default", Key: "default", File: testFile, Kind: Chat, Engine: EngineAuto,
		ModelPath: below("model.gguf"), CtxSize: 4096, BatchSize: 512,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestDefaultModelTOMLDocumentsEveryKey checks that each key is there, once,
// after a comment, and has a value that may be used as it is.
func TestDefaultModelTOMLDocumentsEveryKey(t *testing.T) {
	m, err := ParseModel(testFile, []byte(uncommented()))
	if err != nil {
		t.Fatal(err)
	}
	checkModel(t, m)
	lines := strings.Split(string(DefaultModelTOML()), "\n")
	for key := range modelSchema {
		if strings.Contains(key, ".") {
			continue
		}
		found := 0
		for i, line := range lines {
			if strings.HasPrefix(strings.TrimPrefix(line, "#"), key+" = ") {
				found++
				if i == 0 || !strings.HasPrefix(lines[i-1], "# ") {
					t.Errorf("%s has no explanation above it", key)
				}
			}
		}
		if found != 1 {
			t.Errorf("%s is there %d times, want once", key, found)
		}
	}
}

func TestDefaultModelTOMLIsACopy(t *testing.T) {
	clear(DefaultModelTOML())
	if DefaultModelTOML()[0] == 0 {
		t.Error("a caller can change the template")
	}
}
