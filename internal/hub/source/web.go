package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"assistant/internal/hub/transfer"
)

// ggufMagic is how a GGUF file begins (ggml/docs/gguf.md).
const ggufMagic = "GGUF"

// maxParts bounds how many parts a model at an address is split over: each is asked for. The largest that are published have some tens.
const maxParts = 512

// beginning reads the first four bytes of what an address holds, and how large it is; -1 = not told.
func (r *Resolver) beginning(ctx context.Context, client doer, address string) (string, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := send(ctx, client, address, http.Header{"Range": {"bytes=0-3"}, "Accept-Encoding": {"identity"}})
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	size := int64(-1)
	switch resp.StatusCode {
	case http.StatusOK:
		size = resp.ContentLength
	case http.StatusPartialContent:
		if _, total, ok := strings.Cut(resp.Header.Get("Content-Range"), "/"); ok && total != "*" {
			if size, err = strconv.ParseInt(total, 10, 64); err != nil {
				return "", 0, fmt.Errorf("%s answers with a Content-Range that is none: %w", resp.Request.URL.Host, err)
			}
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return "", 0, fmt.Errorf("%s has an empty file there", resp.Request.URL.Host)
	default:
		return "", 0, newStatusError(resp)
	}
	magic := make([]byte, len(ggufMagic))
	n, err := io.ReadFull(resp.Body, magic)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", 0, fmt.Errorf("read the beginning from %s: %w", resp.Request.URL.Host, err)
	}
	return string(magic[:n]), size, nil
}

func (r *Resolver) resolveWeb(ctx context.Context, ref Ref) (*Plan, error) {
	addresses, err := partsOf(ref.URL)
	if err != nil {
		return nil, err
	}
	if len(ref.SHA256) > 0 && len(ref.SHA256) != len(addresses) {
		return nil, fmt.Errorf("gives %d sha256 for %d files: write one for each part, separated by commas", len(ref.SHA256), len(addresses))
	}
	first := readName(path.Base(addresses[0].Path))
	plan := &Plan{Source: ref.String(), Name: firstName(first.whole, path.Base(path.Dir(addresses[0].Path))), Quantization: first.label}
	for i, u := range addresses {
		name := path.Base(u.Path)
		magic, size, err := r.beginning(ctx, r.following(), u.String())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if isGGUF(name) && magic != ggufMagic {
			return nil, fmt.Errorf("%s is no GGUF, as it begins with %q: is the address that of a page about it?", name, magic)
		}
		if size >= 0 {
			if err := checkSize(name, size); err != nil {
				return nil, err
			}
		}
		f := File{File: transfer.File{Size: size, Locate: locator(func(ctx context.Context) (transfer.Location, error) {
			at, _, err := locate(ctx, r.staying(), u.String(), nil)
			return at, err
		})}, Name: name, Role: Weights}
		if len(ref.SHA256) > 0 {
			f.SHA256 = ref.SHA256[i]
		}
		plan.Files = append(plan.Files, f)
	}
	return plan, nil
}

// partsOf gives the addresses of all parts of a split model, whichever of them is named; of another one its own.
func partsOf(address string) ([]*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	n := readName(u.Path)
	if n.parts > maxParts {
		return nil, fmt.Errorf("is split over %d files, more than %d", n.parts, maxParts)
	}
	if !isGGUF(u.Path) || n.whole+path.Ext(u.Path) == u.Path {
		return []*url.URL{u}, nil
	}
	var list []*url.URL
	for i := range n.parts {
		part := *u
		part.RawPath = ""
		part.Path = fmt.Sprintf("%s-%05d-of-%05d%s", n.whole, i+1, n.parts, path.Ext(u.Path))
		list = append(list, &part)
	}
	return list, nil
}
