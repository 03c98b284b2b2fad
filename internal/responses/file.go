package responses

import (
	"bytes"
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// readFile reads an input_file. Of files only the text can be given to a model here.
func readFile(f fields) part {
	for _, name := range []string{"file_id", "file_url"} {
		if f.has(name) {
			f.blame(name, "no files are held or fetched here: give the file as base64 in %q", f.where("file_data"))
		}
	}
	p := part{Type: partFile, Filename: f.text("filename"), FileData: f.need("file_data")}
	if _, ok := p.fileText(); !ok {
		f.blame("file_data", "%q must be base64 of a text in UTF-8: files of other kinds are not served here", f.where("file_data"))
	}
	return p
}

// fileText decodes a file, if it is a text.
func (p *part) fileText() (string, bool) {
	data := p.FileData
	if strings.HasPrefix(data, "data:") {
		_, data, _ = strings.Cut(data, ",")
	}
	text, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return "", false
	}
	is := utf8.Valid(text) && !bytes.ContainsRune(text, 0) && !bytes.HasPrefix(text, []byte("%PDF-"))
	return string(text), is
}

// asText is a file as a model is told of it.
func (p *part) asText() string {
	text, _ := p.fileText() // it was read before
	if p.Filename == "" {
		return text
	}
	return p.Filename + ":\n" + text
}
