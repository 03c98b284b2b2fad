package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// maxHead bounds the head of a response, together with the informational ones before it, and its trailer, in bytes.
const maxHead = 1 << 20

var (
	errHeadTooLarge = fmt.Errorf("header of more than %d bytes", maxHead)
	errStatusLine   = errors.New("malformed status line")
	errHeaderLine   = errors.New("malformed header line")
	errLength       = errors.New("invalid Content-Length")
	errEncoding     = errors.New("unsupported Transfer-Encoding")
	errTrailer      = errors.New("framing announced as trailer")
	errTrailerEnd   = errors.New("trailer ends with a bare line feed")
	errSwitched     = errors.New("engine switched protocols unasked")
)

// field is one line of a header. Its name is canonical.
type field struct{ name, value string }

// head is the head of a response.
type head struct {
	status     int
	http10     bool
	fields     []field
	connection []string // values of Connection
	length     int64    // what Content-Length says of the body, in bytes; -1 when it does not
	chunked    bool
	bodiless   bool // whatever the length is
	last       bool // the connection carries no other response after this one
}

// readBlock appends to b the lines up to and with the next empty one, at most limit bytes. With an error it returns what
// was read until then.
func readBlock(br *bufio.Reader, b []byte, limit int) ([]byte, error) {
	line := 0 // where in b the current line begins
	for {
		part, err := br.ReadSlice('\n')
		b = append(b, part...)
		if len(b) > limit {
			return b, errHeadTooLarge
		}
		switch {
		case err == bufio.ErrBufferFull: //nolint:errorlint // bufio returns it as it is
			continue
		case err == io.EOF && len(b) > 0:
			return b, io.ErrUnexpectedEOF
		case err != nil:
			return b, err
		}
		if len(trimEOL(b[line:])) == 0 {
			return b, nil
		}
		line = len(b)
	}
}

func trimEOL(b []byte) []byte {
	b = b[:len(b)-1]
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	return b
}

// cutLine splits s after its first line, whose end is not part of it.
func cutLine(s string) (line, rest string) {
	line, rest, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// parse reads a head; h keeps pieces of s.
func (h *head) parse(s, method string) error {
	line, rest := cutLine(s)
	if err := h.parseStatus(line); err != nil {
		return err
	}
	fields, err := parseFields(h.fields[:0], rest)
	if err != nil {
		return err
	}
	h.fields = fields
	return h.frame(method)
}

// parseStatus reads a line such as "HTTP/1.1 200 OK".
func (h *head) parseStatus(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	if len(version) != len("HTTP/1.1") || version[:7] != "HTTP/1." || version[7] < '0' || version[7] > '9' {
		return errStatusLine
	}
	n, err := strconv.ParseUint(code, 10, 16)
	if err != nil || len(code) != 3 || n < 100 {
		return errStatusLine
	}
	h.status, h.http10 = int(n), version[7] == '0'
	return nil
}

// parseFields appends the fields of a header, or of a trailer, that ends with an empty line.
func parseFields(fields []field, s string) ([]field, error) {
	for first := true; ; first = false {
		var line string
		line, s = cutLine(s)
		if line == "" {
			return fields, nil
		}
		if line[0] == ' ' || line[0] == '\t' { // a folded value: obsolete, made one line as RFC 9112 section 5.2 has it
			if first || !validValue(line) {
				return fields, errHeaderLine
			}
			f := &fields[len(fields)-1]
			f.value = strings.Trim(f.value+" "+strings.Trim(line, " \t"), " ")
			continue
		}
		name, value, found := strings.Cut(line, ":")
		if !found || !validName(name) || !validValue(value) {
			return fields, errHeaderLine
		}
		fields = append(fields, field{textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")})
	}
}

// frame finds where the body ends (RFC 9112 section 6.3) and whether the connection can be used after it.
func (h *head) frame(method string) error {
	h.connection = h.connection[:0]
	length, lengths, encodings := "", 0, 0
	for _, f := range h.fields {
		switch f.name {
		case "Content-Length":
			if lengths++; lengths > 1 && f.value != length {
				return errLength
			}
			length = f.value
		case "Transfer-Encoding":
			if encodings++; !h.http10 && (encodings > 1 || !strings.EqualFold(f.value, "chunked")) {
				return errEncoding
			}
		case "Connection":
			h.connection = append(h.connection, f.value)
		}
	}
	h.length = -1
	if lengths > 0 {
		n, err := strconv.ParseUint(length, 10, 63)
		if err != nil {
			return errLength
		}
		h.length = int64(n)
	}
	h.last = hasToken(h.connection, "close") || h.http10 && !hasToken(h.connection, "keep-alive")
	if encodings > 0 && (lengths > 0 || h.http10) {
		h.last = true // two ends are one too many: somebody may be smuggling a response
	}
	h.bodiless = method == http.MethodHead || h.status < 200 || h.status == http.StatusNoContent || h.status == http.StatusNotModified
	h.chunked = encodings > 0 && !h.http10 && !h.bodiless
	switch {
	case h.chunked:
		h.length = -1
	case h.length < 0 && !h.bodiless:
		h.last = true // the body ends with the connection
	}
	return nil
}

// header adds the fields a client is to see to dst, and no more than one Content-Length, none to a chunked body.
func (h *head) header(dst http.Header) {
	values := make([]string, len(h.fields)) // one piece of memory for all
	hasLength := h.chunked
	for i, f := range h.fields {
		if withheldFromClient(f.name) || len(h.connection) > 0 && hasToken(h.connection, f.name) {
			continue
		}
		if f.name == "Content-Length" {
			if hasLength {
				continue
			}
			hasLength = true
		}
		if old, ok := dst[f.name]; ok {
			dst[f.name] = append(old, f.value)
			continue
		}
		values[i] = f.value
		dst[f.name] = values[i : i+1 : i+1]
	}
}

// trailerNames are the names a chunked response announces for its trailer, with nil values; nil if there are none.
func (h *head) trailerNames() (http.Header, error) {
	if !h.chunked {
		return nil, nil
	}
	var names http.Header
	for _, f := range h.fields {
		if f.name != "Trailer" {
			continue
		}
		for name := range strings.SplitSeq(f.value, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			switch {
			case name == "Transfer-Encoding" || name == "Trailer" || name == "Content-Length":
				return nil, errTrailer
			case notInTrailer(name) || withheldFromClient(name):
				continue
			case names == nil:
				names = http.Header{}
			}
			names[name] = nil
		}
	}
	return names, nil
}
