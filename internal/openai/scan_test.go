package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestScan(t *testing.T) {
	for _, tt := range []struct {
		name string
		body string
		want Request // spans are checked apart
	}{
		{"plain", `{"model":"m","stream":true}`, Request{Model: "m", Stream: true}},
		{"white space", "\t{ \"model\" :\r\n\"m\" }\n ", Request{Model: "m"}},
		{"model last", `{"messages":[{"role":"user","content":"\"}],{\\"}],"n":1.5e-3,"model":"a/b:c"}`, Request{Model: "a/b:c"}},
		{"nested models don't count", `{"a":{"model":"x"},"b":[{"model":"y"}],"model":"m"}`, Request{Model: "m"}},
		{"other case", `{"Model":"x","MODEL":1,"model":"m"}`, Request{Model: "m"}},
		{"escaped name and value", `{"mod\u0065l":"a\/\u00e9\ud83d\ude00"}`, Request{Model: "a/é😀"}},
		{"no model", `{"stream":false}`, Request{}},
		{"no field", `{}`, Request{}},
		{"stream null", `{"model":"m","stream":null}`, Request{Model: "m"}},
		{"last stream counts", `{"stream":true,"stream":false}`, Request{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Scan([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if got.Model != tt.want.Model || got.Stream != tt.want.Stream {
				t.Errorf("got %+v", got)
			}
			if got.Model != "" {
				var at string
				if err := json.Unmarshal([]byte(tt.body[got.ModelSpan[0]:got.ModelSpan[1]]), &at); err != nil || at != got.Model {
					t.Errorf("model's span %v is %q, %v", got.ModelSpan, at, err)
				}
			} else if got.ModelSpan != [2]int{} {
				t.Errorf("span %v of an absent model", got.ModelSpan)
			}
		})
	}
}

func TestScanRefuses(t *testing.T) {
	deep := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	for _, tt := range []struct {
		name, body, param, message string
	}{
		{"nothing", "", "", "empty"},
		{"white space", " \n", "", "empty"},
		{"array", `[{"model":"m"}]`, "", "not an object"},
		{"null", `null`, "", "not an object"},
		{"byte order mark", "\xef\xbb\xbf{}", "", "not an object"},
		{"cut", `{"model":"m"`, "", "at byte 12"},
		{"cut string", `{"model":"m`, "", "does not end"},
		{"cut escape", `{"model":"m\`, "", "does not end"},
		{"trailing data", `{"model":"m"}{}`, "", "at byte 13"},
		{"trailing comma", `{"model":"m",}`, "", "name is missing"},
		{"no colon", `{"model" "m"}`, "", "colon"},
		{"bare word", `{"a":maybe}`, "", "value is missing"},
		{"cut literal", `{"a":tru`, "", "value is missing"},
		{"leading zero", `{"a":01}`, "", "comma"},
		{"no digit", `{"a":-}`, "", "digit"},
		{"raw newline in a string", "{\"a\":\"x\ny\"}", "", "control character"},
		{"raw newline in a long string", "{\"a\":\"0123456789abcdef\n\"}", "", "control character"},
		{"unknown escape", `{"a":"\x"}`, "", "escape"},
		{"half an escape", `{"a":"\u12"}`, "", "escape"},
		{"too deep", `{"a":` + deep + `}`, "", "nested"},
		{"model twice", `{"model":"a","model":"a"}`, "model", "more than once"},
		{"model twice, once escaped", `{"model":"a","\u006dodel":"b"}`, "model", "more than once"},
		{"model null", `{"model":null}`, "model", "must be a string"},
		{"model a number", `{"model":3}`, "model", "must be a string"},
		{"model an object", `{"model":{}}`, "model", "must be a string"},
		{"model empty", `{"model":""}`, "model", "empty"},
		{"model not UTF-8", "{\"model\":\"a\xff\"}", "model", "Unicode"},
		{"model half a pair", `{"model":"a\ud800"}`, "model", "Unicode"},
		{"model not UTF-8 and escaped", "{\"model\":\"\\n\xff\"}", "model", "Unicode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Scan([]byte(tt.body))
			var api *Error
			if !errors.As(err, &api) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if api.Status != 400 || api.Type != TypeInvalidRequest || api.Param != tt.param || !strings.Contains(api.Message, tt.message) {
				t.Errorf("got %+v, want 400 for %q with %q", api, tt.param, tt.message)
			}
		})
	}
	if _, err := Scan([]byte(`{"a":` + deep[1:len(deep)-1] + `}`)); err != nil {
		t.Errorf("as deep as allowed: %v", err)
	}
}

// plain's trick with words is exact at each place in a word and beside bytes that could borrow.
func TestPlainString(t *testing.T) {
	for _, filler := range []byte{' ', '!', '#', '[', ']', 'a', 0x7f, 0x80, 0xa2, 0xdc, 0xff} {
		for at := range 40 {
			for c := range 256 {
				b := bytes.Repeat([]byte{filler}, 48)
				b[at] = byte(c)
				want := 48
				if c < ' ' || c == '"' || c == '\\' {
					want = at
				}
				if got := plain(b, 0); got != want {
					t.Fatalf("byte %#x at %d between %#x: got %d, want %d", c, at, filler, got, want)
				}
			}
		}
	}
}

// scanSlowly does what Scan does by encoding/json.
func scanSlowly(body []byte) (model string, stream, ok bool) {
	if !json.Valid(body) {
		return "", false, false
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return "", false, false
	}
	seen := false
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return "", false, false
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return "", false, false
		}
		switch key {
		case "model":
			if seen || value[0] != '"' || json.Unmarshal(value, &model) != nil {
				return "", false, false
			}
			seen = true
			if model == "" || !utf8.Valid(value) || strings.ContainsRune(model, utf8.RuneError) {
				return "", false, false
			}
		case "stream":
			stream = string(value) == "true"
		}
	}
	return model, stream, true
}

func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","stream":true}`, `{"model":"a","mod\u0065l":"b"}`, `{"a":[1,-0.5e+7,null,true,{"b":"\"\\"}],"model":"\ud83d\ude00"}`,
		`{"model":"x\ud800"}`, "{\"model\":\"\xff\"}", `{"messages":[{"role":"assistant"}]}`, `[]`, ` {} x`, `{"a":01}`, `{"a":"` + "\x1f" + `"}`,
		`{"n":2,"prompt":["a"],"stream":null,"stream_options":{}}`, `{"":{"":[[],{}]}}`, `{"a":1e}`, `{"a":"\u00zz"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := Scan(body)
		model, stream, ok := scanSlowly(body)
		if (err == nil) != ok {
			t.Fatalf("got %v, encoding/json says %v", err, ok)
		}
		if err != nil {
			if api := (*Error)(nil); !errors.As(err, &api) || api.Status != 400 {
				t.Errorf("got %v, want a 400", err)
			}
			return
		}
		if got.Model != model || got.Stream != stream {
			t.Errorf("got %q %v, want %q %v", got.Model, got.Stream, model, stream)
		}
		if !got.Joinable() {
			return
		}
		for _, kind := range []Kind{Chat, Completion} {
			asked := AskStream(body, got, kind)
			model, stream, ok := scanSlowly(asked)
			if !ok || model != got.Model || !stream {
				t.Errorf("asked for a stream by %q", asked)
			}
		}
	})
}

// chatBody is a request of about size bytes: text, or one image if that is asked for, and the model in the end.
func chatBody(size int, image bool) []byte {
	content := `"` + strings.Repeat(`Tell me, in a few words, what \"scale to zero\" means.\n`, size/56) + `"`
	if image {
		content = `[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("iVBORw0KGgo/", size/12) + `"}}]`
	}
	return []byte(`{"temperature":0.7,"messages":[{"role":"user","content":` + content + `}],"model":"smollm2"}`)
}

func BenchmarkScan(b *testing.B) {
	for _, bb := range []struct {
		name string
		body []byte
	}{
		{"1KiB", chatBody(1<<10, false)},
		{"64KiB", chatBody(64<<10, false)},
		{"8MiB_image", chatBody(8<<20, true)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Scan(bb.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestScanAllocatesOnlyTheName(t *testing.T) {
	body := chatBody(1<<10, false)
	if got := testing.AllocsPerRun(100, func() { _, _ = Scan(body) }); got > 1 {
		t.Errorf("%v allocations, want 1", got)
	}
}

func form(t testing.TB, fields ...string) (body []byte, contentType string) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == "file" {
			part, err := w.CreateFormFile("file", "a.wav")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(part, fields[i+1])
		} else if err := w.WriteField(fields[i], fields[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), w.FormDataContentType()
}

func TestScanMultipart(t *testing.T) {
	audio := strings.Repeat("\x00\r\n--x\xff", 100_000)
	for _, tt := range []struct {
		name   string
		fields []string
		want   Request
		fault  string // part of the message
	}{
		{"model after the file", []string{"file", audio, "model", "whisper"}, Request{Model: "whisper"}, ""},
		{"stream", []string{"model", "whisper", "stream", "true"}, Request{Model: "whisper", Stream: true}, ""},
		{"no model", []string{"file", "x"}, Request{}, ""},
		{"model twice", []string{"model", "a", "model", "a"}, Request{}, "more than once"},
		{"empty model twice", []string{"model", "", "model", "a"}, Request{}, "empty"},
		{"model not UTF-8", []string{"model", "\xff"}, Request{}, "Unicode"},
		{"long model", []string{"model", strings.Repeat("m", maxField+1)}, Request{}, "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body, contentType := form(t, tt.fields...)
			got, err := ScanMultipart(bytes.NewReader(body), contentType)
			if tt.fault == "" && (err != nil || got != tt.want) {
				t.Errorf("got %+v, %v", got, err)
			}
			var api *Error
			if tt.fault != "" && (!errors.As(err, &api) || api.Status != 400 || !strings.Contains(api.Message, tt.fault)) {
				t.Errorf("got %+v, %v, want %q", got, err, tt.fault)
			}
		})
	}
	body, contentType := form(t, "model", "m", "file", audio)
	for _, tt := range []struct {
		body   []byte
		media  string
		status int
	}{
		{body[:len(body)/2], contentType, 400},
		{nil, contentType, 400},
		{body, "multipart/form-data", 415},
		{body, "application/json", 415},
		{body, "", 415},
	} {
		_, err := ScanMultipart(bytes.NewReader(tt.body), tt.media)
		var api *Error
		if !errors.As(err, &api) || api.Status != tt.status {
			t.Errorf("%d bytes of %q: got %v, want %d", len(tt.body), tt.media, err, tt.status)
		}
	}
}

func ExampleScan() {
	req, err := Scan([]byte(`{"messages":[],"model":"smollm2","stream":true}`))
	fmt.Println(req.Model, req.Stream, err)
	// Output: smollm2 true <nil>
}
