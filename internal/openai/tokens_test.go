package openai

import (
	"errors"
	"strings"
	"testing"
)

func TestTextOfTokens(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"m","input":"text","a":1}`:                    "",
		`{"input":["1","2"]}`:                                   "",
		`{"model":"m"}`:                                         "",
		`{"input":[]}`:                                          "",
		`{"input": [ 15339, 1917 ],"a":1}`:                      `{"input": ["hello world"],"a":1}`,
		`{"input":[[15339, 1917],[9906],[57668, 53901, 3922]]}`: `{"input":["hello world","Hello","你好，"]}`,
		`{"input":[[15339,1917],[]]}`:                           "error",
		`{"input":[15339,"b"]}`:                                 "error",
		`{"input":[15339,[1917]]}`:                              "error",
		`{"input":[-1]}`:                                        "error",
		`{"input":[1.5]}`:                                       "error",
		`{"input":[100300]}`:                                    "error",
		`{"input":[99999999999999999999999]}`:                   "error",
	} {
		req, err := Scan([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := TextOfTokens([]byte(body), req)
		var api *Error
		switch {
		case want == "error":
			if !errors.As(err, &api) || api.Param != "input" || api.Status != 400 || !strings.Contains(api.Message, "cl100k_base") {
				t.Errorf("%s: %q, %v", body, got, err)
			}
		case err != nil || string(got) != strings.NewReplacer(`\u4f60\u597d\uff0c`, "\u4f60\u597d\uff0c").Replace(want):
			t.Errorf("%s: %q, %v, want %q", body, got, err, want)
		}
	}
}
