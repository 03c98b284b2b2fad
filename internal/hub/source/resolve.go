package source

import (
	"context"
	"fmt"
	"net/http"

	"oras.land/oras-go/v2/registry/remote/auth"

	"assistant/internal/hub/transfer"
)

// Resolver finds out what sources stand for. Its zero value asks the public places, without a token. It may be used by many at a time.
type Resolver struct {
	Client *http.Client // nil = http.DefaultClient, which uses the proxies of the environment

	// HuggingFace is where the hub is, as HF_ENDPOINT has it; "" = https://huggingface.co. Several are separated by commas (ours alone):
	// mirrors, of which the first is asked first, and the others when it fails.
	HuggingFace string
	Token       string // HF_TOKEN; sent to these hosts alone, and only encrypted or to this machine; "" = none

	OllamaRegistry string              // "" = https://registry.ollama.ai
	Credential     auth.CredentialFunc // for registries of OCI artefacts; nil = as docker login left them

	Memory int64  // bytes that a model may take: the largest that fits is chosen; 0 = not known
	Base   string // directory that the paths of file: are relative to; "" = the working directory
}

// Resolve asks what a source stands for now. It brings nothing yet, but for what is to be shown before: names, sizes and the licence.
func (r *Resolver) Resolve(ctx context.Context, ref Ref) (*Plan, error) {
	var plan *Plan
	var err error
	switch ref.Kind {
	case HuggingFace:
		plan, err = r.resolveHub(ctx, ref)
	case Ollama, OCI:
		plan, err = r.resolveRegistry(ctx, ref)
	case Web:
		plan, err = r.resolveWeb(ctx, ref)
	case Local:
		plan, err = r.resolveLocal(ref)
	default:
		err = fmt.Errorf("is of no known kind: write %s", Forms)
	}
	if err == nil {
		err = plan.finish()
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", ref, err)
	}
	return plan, nil
}

// Choices lists what a source may be narrowed to, the smallest first: the quantisations of a repository or directory, the tags of a
// registry. A source that leaves no choice gives itself.
func (r *Resolver) Choices(ctx context.Context, ref Ref) ([]Choice, error) {
	var list []Choice
	var err error
	switch ref.Kind {
	case HuggingFace:
		list, err = r.hubChoices(ctx, ref)
	case Ollama, OCI:
		list, err = r.tags(ctx, ref)
	case Local:
		list, err = r.localChoices(ref)
	default:
		var plan *Plan
		if plan, err = r.Resolve(ctx, ref); err != nil {
			return nil, err
		}
		list = []Choice{{
			Name: plan.Name, Quantization: plan.Quantization, Parts: len(plan.Files), Size: plan.Size,
			Fits: fits(plan.Size, r.Memory), Default: true,
		}}
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", ref, err)
	}
	return list, nil
}

// finish adds up and checks what does not depend on the kind: names come from servers.
func (p *Plan) finish() error {
	seen := map[string]bool{}
	for _, f := range p.Files {
		if err := checkName(f.Name); err != nil {
			return err
		}
		if seen[f.Name] {
			return fmt.Errorf("two of its files are called %s", f.Name)
		}
		seen[f.Name] = true
		p.Size = sum64(p.Size, f.Size)
	}
	if p.Size > maxSize {
		return fmt.Errorf("its files are said to have %d bytes, which no model has", p.Size)
	}
	return nil
}

// locator is a File's Locate for one place.
func locator(at func(context.Context) (transfer.Location, error)) func(context.Context) ([]transfer.Location, error) {
	return func(ctx context.Context) ([]transfer.Location, error) {
		l, err := at(ctx)
		if err != nil {
			return nil, err
		}
		return []transfer.Location{l}, nil
	}
}
