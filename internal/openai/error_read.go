package openai

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// ReadError reads an error response, or an event of a stream that tells of one. status is the HTTP status it came with, 0 if that was
// the stream's: then it is what the object says, if it is a number as llama-server's, else 500.
func ReadError(status int, said []byte) *Error {
	e := errorObject(said)
	if status == 0 {
		status = statusOf(said)
	}
	e.Status = status
	if e.Message == "" {
		if e.Message = trimText(string(said)); e.Message == "" {
			e.Message = http.StatusText(status)
		}
	}
	if e.Type == "" {
		e.Type = typeOf(status)
	}
	return &e
}

// statusOf finds the status in an error object: the number that is its code, or that of our own codes.
func statusOf(said []byte) int {
	var object struct {
		Error struct {
			Code json.RawMessage `json:"code"`
		} `json:"error"`
	}
	_ = json.Unmarshal(said, &object)
	switch status, err := strconv.Atoi(string(object.Error.Code)); {
	case err == nil && status >= 400 && status <= 599:
		return status
	case string(object.Error.Code) == `"`+CodeModelLoading+`"`, string(object.Error.Code) == `"`+CodeShuttingDown+`"`:
		return http.StatusServiceUnavailable
	case string(object.Error.Code) == `"`+CodeRateLimit+`"`:
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}
