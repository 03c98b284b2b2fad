package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"assistant/internal/gguf"
	"assistant/internal/hub/transfer"
)

// place makes a path absolute.
func (r *Resolver) place(p string) (string, error) {
	if !filepath.IsAbs(p) {
		p = filepath.Join(r.Base, p)
	}
	return filepath.Abs(p)
}

// beside lists the files of a directory, not of those below it.
func beside(dir string) ([]entry, error) {
	items, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []entry
	for _, item := range items {
		info, err := os.Stat(filepath.Join(dir, item.Name())) // of what a link leads to
		if err == nil && info.Mode().IsRegular() {
			all = append(all, entry{path: item.Name(), size: info.Size()})
		}
	}
	return all, nil
}

// localPlace looks at a path: the directory, its files, and the name of the one that is asked for; "" = the directory is.
func (r *Resolver) localPlace(ref Ref) (dir, name string, all []entry, err error) {
	p, err := r.place(ref.Path)
	if err != nil {
		return "", "", nil, err
	}
	info, err := os.Stat(p)
	if err != nil {
		return "", "", nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	switch {
	case info.IsDir():
		dir = p
	case info.Mode().IsRegular():
		dir, name = filepath.Split(p)
	default:
		return "", "", nil, fmt.Errorf("%s is neither a file nor a directory", p)
	}
	all, err = beside(dir)
	return dir, name, all, err
}

func (r *Resolver) localChoices(ref Ref) ([]Choice, error) {
	_, name, all, err := r.localPlace(ref)
	if err != nil {
		return nil, err
	}
	list := variants(all)
	if name != "" {
		list = slices.DeleteFunc(list, func(v variant) bool {
			return !slices.ContainsFunc(v.files, func(e entry) bool { return e.path == name })
		})
	}
	return choices(list, r.Memory), nil
}

// resolveLocal takes files as they lie. Their headers are read, so that a file that was cut off is told here and not by an engine.
func (r *Resolver) resolveLocal(ref Ref) (*Plan, error) {
	dir, name, all, err := r.localPlace(ref)
	if err != nil {
		return nil, err
	}
	var v variant
	if list := variants(all); name != "" && !slices.ContainsFunc(list, func(v variant) bool {
		return slices.ContainsFunc(v.files, func(e entry) bool { return e.path == name })
	}) {
		i := slices.IndexFunc(all, func(e entry) bool { return e.path == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s is gone", ErrNotFound, filepath.Join(dir, name))
		}
		v = variant{nameParts: readName(name), files: all[i : i+1]}
	} else if v, err = pick(list, name, r.Memory); err != nil {
		return nil, err
	}

	first := filepath.Join(dir, v.files[0].path)
	plan := &Plan{Source: "file:" + first, Name: firstName(v.files[0].path, filepath.Base(dir)), Quantization: v.label}
	if isGGUF(first) {
		h, err := gguf.Read(first)
		if err != nil {
			return nil, err
		}
		if q := h.Quantization(); q != "" && !strings.Contains(plan.Quantization, "-") { // a mixture has a name of its own
			plan.Quantization = q
		}
	}
	for _, e := range v.files {
		plan.Files = append(plan.Files, localFile(dir, e, Weights))
	}
	if e, ok := projectorOf(all, v); ok && isWeights(first) {
		plan.Files = append(plan.Files, localFile(dir, e, Projector))
	}
	return plan, nil
}

func localFile(dir string, e entry, role Role) File {
	return File{File: transfer.File{Size: e.size}, Name: e.path, Role: role, Path: filepath.Join(dir, e.path)}
}
