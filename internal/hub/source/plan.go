// Package source knows where models are published: what a model_source names, and which files it stands for.
package source

import "assistant/internal/hub/transfer"

// Role is what a file of a model is for.
type Role string

// The roles of files.
const (
	Weights   Role = "weights"   // the model; of a split one, each part
	Projector Role = "projector" // what makes images or sounds something the model can read
	Adapter   Role = "adapter"   // a LoRA, to be applied to the weights
	Template  Role = "template"  // of a chat: Jinja by OCI, Go's text/template by Ollama, which no engine of ours reads
	System    Role = "system"    // what a chat is told first
	Params    Role = "params"    // defaults of requests, JSON
	Messages  Role = "messages"  // how a chat begins, JSON
	Licence   Role = "licence"
)

// File is one file of a model.
type File struct {
	transfer.File
	Name string // its name among the model's files, without directories, such as "qwen2.5-0.5b-instruct-q4_k_m.gguf"
	Role Role
	Path string // where it lies, if it is on this machine already (file:); "" = it is to be brought
}

// Plan is what a source stands for just now.
type Plan struct {
	Source       string // as it is written in full: the quantisation and tag that were chosen included
	Name         string // what the model may be called here, such as "qwen2.5-0.5b-instruct"
	Files        []File // the weights in their order, then the others
	Size         int64  // bytes of all; -1 = not known
	Quantization string // such as "Q4_K_M"; "" = not known
	Licence      string // its identifier, such as "apache-2.0", or the first line of its text; "" = not told
	Revision     string // a commit or digest that stays the same as long as the files do; "" = not told
}
