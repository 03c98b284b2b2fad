package modeldir

import "fmt"

// resolve settles which version of each source is in force: the newest, unless a
// name of it is taken; then the version before, if any. A name that two claim stays with
// the one that has it, or else goes to the first in order.
func resolve(sources []*source) {
	r := resolver{
		holders: make(map[string]*source, len(sources)),
		chosen:  make(map[*source][]*Model, len(sources)),
	}
	for _, src := range sources {
		src.clash = nil
		for name := range names(src.inForce) {
			r.holders[name] = src
		}
		r.chosen[src] = src.read
		if src.read == nil || src.missing {
			r.chosen[src] = src.inForce
		}
	}
	// A source gives way once at most: the version it goes back to has names
	// that it holds, and to a holder the others give way. So there is an end.
	for r.changed = true; r.changed; {
		r.changed = false
		r.claims = make(map[string]*source, len(sources))
		for _, src := range sources {
			r.claim(src)
		}
	}
	for _, src := range sources {
		src.inForce = r.chosen[src]
	}
}

type resolver struct {
	holders map[string]*source // who has a name in force
	chosen  map[*source][]*Model
	claims  map[string]*source // who is to have a name, as far as this round has come
	changed bool               // somebody gave way in this round
}

// claim claims all names of the version chosen for src.
func (r *resolver) claim(src *source) {
	for name := range names(r.chosen[src]) {
		other := r.claims[name]
		switch {
		case other == nil || other == src:
		case other.missing || !src.missing && r.holders[name] == src:
			r.giveWay(other, name, src)
		default:
			r.giveWay(src, name, other)
			return
		}
		r.claims[name] = src
	}
}

// giveWay sends a source whose name is another's back to its version in force.
func (r *resolver) giveWay(src *source, name string, to *source) {
	for n := range names(r.chosen[src]) {
		if r.claims[n] == src {
			delete(r.claims, n)
		}
	}
	r.changed = true
	if src.missing { // most likely its file has become the other one, by renaming
		r.chosen[src] = nil
		return
	}
	winner := r.chosen[to][0]
	src.clash = &Fault{File: src.path, Name: stem(src.path), Err: &FieldError{
		File: src.path, Field: "name",
		Reason: fmt.Sprintf("%q is taken by model %q of %s: choose another name or alias", name, winner.Name, winner.File),
	}}
	if len(src.inForce) > 0 {
		src.clash.Name = src.inForce[0].Name
	}
	r.chosen[src] = src.inForce
}
