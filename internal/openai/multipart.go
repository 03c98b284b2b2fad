package openai

import (
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
)

// maxField bounds the fields that are read of a form, in bytes. A model's name is far shorter.
const maxField = 4 << 10

// ScanMultipart reads the fields "model" and "stream" of a multipart/form-data body, such as an audio upload. It
// walks the parts and keeps none: the files in them stay where they are. Errors are *Error, or r's own.
func ScanMultipart(r io.Reader, contentType string) (Request, error) {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || media != "multipart/form-data" || params["boundary"] == "" {
		return Request{}, UnsupportedMedia(contentType)
	}
	var req Request
	seen := false
	form := multipart.NewReader(r, params["boundary"])
	for {
		part, err := form.NextRawPart()
		if err == io.EOF { // bare it is the form's end; wrapped it is a form cut short
			return req, nil
		}
		if err != nil {
			return Request{}, badForm(err)
		}
		switch part.FormName() {
		case "model":
			if seen {
				return Request{}, InvalidRequest("model", `"model" is given more than once`)
			}
			seen = true
			name, err := formValue(part)
			if err != nil {
				return Request{}, err
			}
			if err := checkModel(name); err != nil {
				return Request{}, err
			}
			req.Model = name
		case "stream":
			value, err := formValue(part)
			if err != nil {
				return Request{}, err
			}
			req.Stream = value == "true" || value == "True" || value == "1" // as SDKs in JavaScript, Python and C write it
		}
	}
}

func formValue(part *multipart.Part) (string, error) {
	name := part.FormName()
	value, err := io.ReadAll(io.LimitReader(part, maxField+1))
	if err != nil {
		return "", badForm(err)
	}
	if len(value) > maxField {
		return "", InvalidRequest(name, fmt.Sprintf("%q is longer than %d bytes", name, maxField))
	}
	return string(value), nil
}

func badForm(err error) error {
	return &Error{
		Status: http.StatusBadRequest, Type: TypeInvalidRequest,
		Message: "could not read the request body as multipart/form-data: " + err.Error(),
	}
}
