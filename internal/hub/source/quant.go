package source

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// entry is a file as it is published.
type entry struct {
	path   string // with slashes, within the repository
	size   int64  // bytes; -1 = not known
	sha256 string // "" = not known
}

// nameParts is what the path of a file tells.
type nameParts struct {
	whole string // the path without the number of the part and the ending: the same for the parts of one model
	stem  string // the name without the ending, the number of the part and the quantisation
	label string // the quantisation in capitals, such as "Q4_K_M" or "UD-Q4_K_XL"; "" = none is told
	part  int    // 1 if it is not split
	parts int    // 1 if it is not split
}

var (
	// splitName is llama.cpp's way to name the parts of a model (llama_split_path).
	splitName = regexp.MustCompile(`^(.+)-([0-9]{5})-of-([0-9]{5})$`)

	// quantName is the names of llama.cpp's quantisations (its llama_ftype, and those of its forks and of publishers who mix them), as
	// they end a word of a file's name. FP16 is Qwen's way to write F16.
	quantName = regexp.MustCompile(`(?i)^(?:.*_)?((?:IQ|TQ|Q)[0-9]+(?:_(?:[0-9]+|K|NL|XXS|XS|S|M|L|XL|XXL|MOE|KS|KT|KSS|R4|R8))*` +
		`|BF16|FP?16|FP?32|(?:MX|NV)FP4(?:_MOE)?)$`)
)

// readName takes a path apart. A quantisation that the name does not tell may be told by the directory.
func readName(p string) nameParts {
	n := nameParts{whole: p, part: 1, parts: 1}
	if ending := path.Ext(p); strings.EqualFold(ending, ".gguf") {
		n.whole = p[:len(p)-len(ending)]
	}
	if m := splitName.FindStringSubmatch(n.whole); m != nil {
		part, err := strconv.Atoi(m[2])
		parts, err2 := strconv.Atoi(m[3])
		if err == nil && err2 == nil && part >= 1 && part <= parts {
			n.whole, n.part, n.parts = m[1], part, parts
		}
	}
	dir, base := path.Split(n.whole)
	n.label, n.stem = quantOf(base)
	for dir := path.Clean(dir); n.label == "" && dir != "." && dir != "/"; dir = path.Dir(dir) {
		n.label, _ = quantOf(path.Base(dir))
	}
	return n
}

// quantOf finds the last quantisation in a name, and what is left of the name without it.
func quantOf(name string) (label, rest string) {
	words := regexpSplit(name)
	for i, w := range slices.Backward(words) {
		m := quantName.FindStringSubmatchIndex(name[w.begin:w.end])
		if m == nil {
			continue
		}
		begin, end := w.begin+m[2], w.begin+m[3]
		label = strings.ToUpper(name[begin:end])
		label = strings.NewReplacer("FP16", "F16", "FP32", "F32").Replace(label)
		if i > 0 && begin == w.begin {
			// Unsloth's dynamic mixtures, and those made with an importance matrix by mradermacher.
			if before := name[words[i-1].begin:words[i-1].end]; strings.EqualFold(before, "UD") || strings.EqualFold(before, "i1") {
				label, begin = strings.ToUpper(before)+"-"+label, words[i-1].begin
			}
		}
		return label, name[:begin] + name[end:]
	}
	return "", name
}

// word is a place in a name between dashes and dots.
type word struct{ begin, end int }

func regexpSplit(name string) []word {
	var words []word
	begin := 0
	for i := range len(name) + 1 {
		if i == len(name) || name[i] == '-' || name[i] == '.' {
			words = append(words, word{begin, i})
			begin = i + 1
		}
	}
	return words
}

// variant is one of the models that a place holds: most often the same one, quantised in another way.
type variant struct {
	nameParts
	files   []entry // the parts in their order
	size    int64   // bytes of all; -1 = not known
	missing int     // the number of a part that is not there; 0 = all are
}

// Choice is what a source may be narrowed to.
type Choice struct {
	Name         string // what to write for it, such as "Q4_K_M": hf:OWNER/REPO:NAME
	Quantization string // "" = not known
	Parts        int    // files it is split over
	Size         int64  // bytes; -1 = not known
	Fits         bool   // in the Resolver's memory, as far as that is known
	Default      bool   // it is what is taken if none is named
}

// sidecars begin or mark the names of files that no engine can load alone (llama.cpp, gguf_filename_is_model): projectors, statistics for
// quantising, and models that only guess ahead for another one.
var sidecars = []string{"mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-", "ggml-vocab-"}

func isGGUF(p string) bool { return strings.EqualFold(path.Ext(p), ".gguf") }

func isWeights(p string) bool {
	base := strings.ToLower(path.Base(p))
	return isGGUF(p) && !slices.ContainsFunc(sidecars, func(s string) bool { return strings.Contains(base, s) })
}

// isDraft tells models that are there to speed up a bigger one beside them. Alone in a repository, one is what is asked for.
func isDraft(v variant) bool {
	return slices.Contains(strings.FieldsFunc(strings.ToLower(v.stem), notAlnum), "draft")
}

func notAlnum(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }

// variants groups what can be loaded, in the order of the paths.
func variants(all []entry) []variant {
	type key struct {
		whole string
		parts int
	}
	groups := map[key]*variant{}
	var order []key
	for _, e := range all {
		if !isWeights(e.path) {
			continue
		}
		n := readName(e.path)
		k := key{n.whole, n.parts}
		if groups[k] == nil {
			groups[k] = &variant{nameParts: n}
			order = append(order, k)
		}
		groups[k].files = append(groups[k].files, e)
	}
	list := make([]variant, 0, len(order))
	for _, k := range order {
		groups[k].finish()
		list = append(list, *groups[k])
	}
	slices.SortFunc(list, func(a, b variant) int { return cmp.Compare(a.files[0].path, b.files[0].path) })
	return list
}

// finish sorts the parts, adds them up and looks whether all are there.
func (v *variant) finish() {
	slices.SortFunc(v.files, func(a, b entry) int { return cmp.Compare(readName(a.path).part, readName(b.path).part) })
	for i := range v.parts {
		if i >= len(v.files) || readName(v.files[i].path).part != i+1 {
			v.missing = i + 1
			break
		}
	}
	for _, f := range v.files {
		v.size = sum64(v.size, f.size)
	}
}

// sum64 adds sizes, of which -1 are not known.
func sum64(a, b int64) int64 {
	if a < 0 || b < 0 {
		return -1
	}
	return a + b
}

// fits tells whether a model of size bytes can run in memory: its file, a tenth more for what engines compute in, and half a GiB for the
// engine and a short context. Memory 0 is not known, and everything fits.
func fits(size, memory int64) bool { return memory <= 0 || size < 0 || size+size/10+512<<20 <= memory }

// pick takes the variant that is named, or else the default one.
func pick(list []variant, want string, memory int64) (variant, error) {
	var v variant
	var err error
	if want == "" {
		v, err = byDefault(list, memory)
	} else {
		v, err = byName(list, want)
	}
	if err == nil && v.missing > 0 {
		err = fmt.Errorf("%s is split over %d files, of which number %d is not there: choose another one of %s",
			v.whole, v.parts, v.missing, told(list))
	}
	return v, err
}

// byName takes what is called so: a file, or a quantisation. A name of a quantisation is a whole one: Q4_K_M is not IQ4_K_M.
func byName(list []variant, want string) (variant, error) {
	for _, same := range []func(variant) bool{
		func(v variant) bool {
			return slices.ContainsFunc(v.files, func(e entry) bool { return e.path == want })
		},
		func(v variant) bool {
			return slices.ContainsFunc(v.files, func(e entry) bool { return strings.EqualFold(e.path, want) })
		},
		func(v variant) bool {
			return strings.EqualFold(v.whole, want) || slices.ContainsFunc(v.files, func(e entry) bool {
				return strings.EqualFold(path.Base(e.path), want)
			})
		},
		func(v variant) bool {
			return strings.EqualFold(v.label, strings.ReplaceAll(strings.ToUpper(want), "FP", "F"))
		},
		func(v variant) bool { // without what stands before it: UD-Q4_K_XL by Q4_K_XL
			_, bare, ok := strings.Cut(v.label, "-")
			return ok && strings.EqualFold(bare, want)
		},
		func(v variant) bool { // what we know no name of
			return slices.ContainsFunc(regexpSplit(v.whole), func(w word) bool { return strings.EqualFold(v.whole[w.begin:w.end], want) })
		},
	} {
		found := slices.DeleteFunc(slices.Clone(list), func(v variant) bool { return !same(v) })
		if len(found) > 1 && slices.ContainsFunc(found, func(v variant) bool { return !isDraft(v) }) {
			found = slices.DeleteFunc(found, isDraft)
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return variant{}, fmt.Errorf("%s could be any of %s: name the file", want, files(found))
		}
	}
	return variant{}, fmt.Errorf("has no %s: %w; there are %s", want, ErrNotFound, told(list))
}

// preferred is what is taken where the memory is not known: llama.cpp's own choice (its find_best_model of common/download.cpp); after
// these two it takes the first file.
var preferred = []string{"Q4_K_M", "Q8_0"}

// byDefault takes what a person would want who did not say. Where the memory is known, that is the largest that fits of those with at most
// 8 bits a weight: more costs speed and shows in no answer. If only larger ones are there, the smallest of them.
func byDefault(list []variant, memory int64) (variant, error) {
	whole := slices.DeleteFunc(slices.Clone(list), func(v variant) bool { return v.missing > 0 })
	if slices.ContainsFunc(whole, func(v variant) bool { return !isDraft(v) }) {
		whole = slices.DeleteFunc(whole, isDraft)
	}
	if len(whole) == 0 {
		return variant{}, fmt.Errorf("%w: it holds no GGUF that is whole", ErrNotFound)
	}
	if memory <= 0 {
		for _, label := range preferred {
			if slices.ContainsFunc(whole, func(v variant) bool { return v.label == label }) {
				return byName(whole, label)
			}
		}
		return whole[0], nil
	}
	fitting := slices.DeleteFunc(slices.Clone(whole), func(v variant) bool { return !fits(v.size, memory) })
	if len(fitting) == 0 {
		return variant{}, fmt.Errorf("nothing of it fits into %s: there are %s; name one to have it all the same",
			humanize.IBytes(uint64(memory)), told(whole))
	}
	bits := func(v variant) int { return min(0, 8-bitsOf(v.label)) } // 0 up to 8 bits, less with each above
	best := slices.MaxFunc(fitting, func(a, b variant) int {
		if c := cmp.Compare(bits(a), bits(b)); c != 0 {
			return c
		}
		return cmp.Compare(a.size, b.size)
	})
	return best, nil
}

// bitsOf is how many bits a weight has, as the first number of the quantisation tells: 4 of Q4_K_M, 16 of BF16. It is 0 for "".
func bitsOf(label string) int {
	digits := strings.FieldsFunc(label, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, err := strconv.Atoi(digits[0])
	if err != nil {
		return 0
	}
	return n
}

// projectorOf finds the projector that goes with a model as llama.cpp does (find_best_sibling of common/download.cpp): the one that
// lies nearest, beside the model or above it, and of these the one whose bits are closest to the model's. Of equals llama.cpp takes the
// first; here F16 is before BF16, as it is fast everywhere.
func projectorOf(all []entry, v variant) (entry, bool) {
	dir := path.Dir(v.files[0].path)
	var found []entry
	for _, e := range all {
		d := path.Dir(e.path)
		above := d == "." || d == dir || strings.HasPrefix(dir, d+"/")
		if above && isGGUF(e.path) && strings.Contains(strings.ToLower(path.Base(e.path)), "mmproj") {
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return entry{}, false
	}
	far := func(e entry) int {
		a, b := bitsOf(readName(e.path).label), bitsOf(v.label)
		return max(a, b) - min(a, b)
	}
	return slices.MinFunc(found, func(a, b entry) int {
		return cmp.Or(
			cmp.Compare(strings.Count(b.path, "/"), strings.Count(a.path, "/")),
			cmp.Compare(far(a), far(b)),
			cmp.Compare(readName(b.path).label, readName(a.path).label), // F32, F16, BF16
			cmp.Compare(a.path, b.path),
		)
	}), true
}

// labels counts the quantisations of what is no draft.
func labels(list []variant) map[string]int {
	count := map[string]int{}
	for _, v := range list {
		if !isDraft(v) {
			count[v.label]++
		}
	}
	return count
}

// name is what names a variant among the others: its quantisation, or its file if that is not enough.
func (v variant) name(count map[string]int) string {
	if v.label != "" && count[v.label] == 1 && !isDraft(v) {
		return v.label
	}
	return v.files[0].path
}

func choices(list []variant, memory int64) []Choice {
	chosen, err := byDefault(list, memory)
	count := labels(list)
	var out []Choice
	for _, v := range list {
		if v.missing > 0 {
			continue
		}
		out = append(out, Choice{
			Name: v.name(count), Quantization: v.label, Parts: v.parts, Size: v.size, Fits: fits(v.size, memory),
			Default: err == nil && v.whole == chosen.whole && v.parts == chosen.parts,
		})
	}
	slices.SortStableFunc(out, func(a, b Choice) int { return cmp.Compare(a.Size, b.Size) })
	return out
}

// told lists what there is, for errors.
func told(list []variant) string {
	var names []string
	for _, c := range choices(list, 0) {
		if c.Size >= 0 {
			c.Name += " (" + humanize.Bytes(uint64(c.Size)) + ")"
		}
		names = append(names, c.Name)
	}
	return shorten(names)
}

func files(list []variant) string {
	var names []string
	for _, v := range list {
		names = append(names, v.files[0].path)
	}
	return shorten(names)
}

// shorten joins names, of which a hostile place may have any number.
func shorten(names []string) string {
	const most = 40
	if len(names) == 0 {
		return "none"
	}
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
