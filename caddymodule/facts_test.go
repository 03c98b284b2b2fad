package caddymodule

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"assistant/internal/gguf/gguftest"
	"assistant/modeldir"
)

// A file that several models have is read once, and again when it changed.
func TestFilesAreReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	write := func(context int) {
		t.Helper()
		b, _ := new(gguftest.File).Add("general.architecture", "llama").Add("llama.context_length", context).Bytes()
		if err := os.WriteFile(path, append(b, make([]byte, context%7)...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var models []*modeldir.Model
	for i := range 3 {
		models = append(models, &modeldir.Model{Key: fmt.Sprint(i), ModelPath: path})
	}
	models[2].Args = []string{"--mmproj", "p.gguf"}
	rt, known := &runtime{}, map[string]*facts{}
	write(2048)
	if !rt.learn(models, known) || known["0"] != known["1"] || known["0"].contextLength != 2048 || !known["2"].vision || known["1"].vision {
		t.Errorf("%+v", known)
	}
	if before := known["0"]; rt.learn(models, known) || known["0"] != before {
		t.Error("files that are the same are read again")
	}
	write(4096)
	if !rt.learn(models, known) || known["1"].contextLength != 4096 || known["0"] != known["1"] {
		t.Errorf("after a change: %+v", known["1"])
	}
}
