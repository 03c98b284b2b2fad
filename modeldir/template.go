package modeldir

import (
	_ "embed"
	"slices"
)

//go:embed default-model.toml
var defaultModel []byte

// DefaultModelTOML returns a model file to start from: the usual keys with their
// defaults, all others in comments with what they mean.
func DefaultModelTOML() []byte { return slices.Clone(defaultModel) }
