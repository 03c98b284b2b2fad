package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// inPieces makes the stream of an engine that says text in pieces: those between the cuts, each of which is how many
// bytes the piece has.
func inPieces(text string, cuts []byte) (stream []byte, pieces int) {
	for text != "" {
		n := len(text)
		if len(cuts) > 0 {
			n, cuts = min(n, 1+int(cuts[0])%16), cuts[1:]
		}
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n++
		}
		stream = fmt.Appendf(stream, `data: {"id":"x","choices":[{"index":0,"delta":{"content":%s,"role":"assistant"},"finish_reason":null}]}`+"\n\n", Marshal(text[:n]))
		text = text[n:]
		pieces++
	}
	return append(stream, "data: [DONE]\n\n"...), pieces
}

// FuzzRepairStop: whatever pieces a text comes in, the client gets the same of it, which is all up to the stop sequence
// that is complete first.
func FuzzRepairStop(f *testing.F) {
	f.Add("The capital is Paris.", "is P", "x", []byte{3, 1, 2})
	f.Add("abcabd", "abd", "b", []byte{0, 0, 0, 0})
	f.Add("aaaaaaab", "aaab", "aab", []byte{1, 1})
	f.Add("A 😀 é \" \\ \n", "é", "😀!", []byte{0})
	f.Fuzz(func(t *testing.T, text, stop1, stop2 string, cuts []byte) {
		if !utf8.ValidString(text) || !utf8.ValidString(stop1) || !utf8.ValidString(stop2) || len(text) > 1<<12 || len(stop1)+len(stop2) > 1<<10 || text == contextFull {
			return
		}
		ask := fmt.Sprintf(`{"model":"asked",%s,"stream":true,"stop":[%s,%s]}`, hello, Marshal(stop1), Marshal(stop2))
		want, finish := text, "stop"
		for i := range len(text) { // the definition, the slow way
			end := text[:i+1]
			if cut := firstStop(end, stop1, stop2); cut != end {
				want = cut
				break
			}
		}
		for _, c := range [][]byte{cuts, nil, bytes.Repeat([]byte{0}, len(text))} {
			stream, _ := inPieces(text, c)
			if bytes.Contains(stream, []byte(contextFull)) {
				return
			}
			var out bytes.Buffer
			if _, err := mustPlan(t, ask, Chat).Stream(&out, bytes.NewReader(stream)); err != nil {
				t.Fatal(err)
			}
			if got := readTold(t, out.Bytes(), Chat); got.Text != want || got.Finish != finish {
				t.Fatalf("got %q (%s), want %q of %q, stop %q and %q", got.Text, got.Finish, want, text, stop1, stop2)
			}
		}
	})
}

// firstStop cuts the longest stop sequence from the end of text.
func firstStop(text, stop1, stop2 string) string {
	cut := text
	for _, stop := range []string{stop1, stop2} {
		if before, ok := strings.CutSuffix(text, stop); ok && stop != "" && len(before) < len(cut) {
			cut = before
		}
	}
	return cut
}

// FuzzRepairMaxTokens: the text is that of the first tokens, no more and no less, and the finish_reason says whether it
// was cut.
func FuzzRepairMaxTokens(f *testing.F) {
	f.Add("The capital is Paris.", uint8(3), []byte{3, 1, 2})
	f.Fuzz(func(t *testing.T, text string, most uint8, cuts []byte) {
		if !utf8.ValidString(text) || most == 0 || len(text) > 1<<12 {
			return
		}
		stream, pieces := inPieces(text, cuts)
		if bytes.Contains(stream, []byte(contextFull)) {
			return
		}
		n := min(int(most), pieces)
		head := bytes.SplitAfterN(stream, []byte("\n\n"), n+1)
		var want strings.Builder
		for _, event := range head[:n] {
			var c struct {
				Choices []struct{ Delta struct{ Content string } }
			}
			if err := json.Unmarshal(event[len("data: "):], &c); err != nil {
				t.Fatal(err)
			}
			want.WriteString(c.Choices[0].Delta.Content)
		}
		finish := "stop"
		if int(most) <= pieces {
			finish = "length"
		}
		var out bytes.Buffer
		p := mustPlan(t, fmt.Sprintf(`{"model":"asked",%s,"stream":true,"max_tokens":%d}`, hello, most), Chat)
		counts, err := p.Stream(&out, bytes.NewReader(stream))
		if err != nil {
			t.Fatal(err)
		}
		if got := readTold(t, out.Bytes(), Chat); got.Text != want.String() || got.Finish != finish || counts.Completion != n {
			t.Fatalf("got %q (%s, %d tokens), want %q (%s) of %d tokens at most", got.Text, got.Finish, counts.Completion, want.String(), finish, most)
		}
	})
}

// FuzzRepairStream: no stream, however broken, makes it panic or write what is not events; and nothing that ended early
// looks whole.
func FuzzRepairStream(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join("testdata", "dialect", "*.sse"))
	for _, file := range files {
		f.Add(recorded(f, filepath.Base(file)), true)
	}
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"\\ud83d\"}}]}\n\ndata: [DONE]\n\n"), false)
	f.Fuzz(func(t *testing.T, stream []byte, tools bool) {
		ask := `{"model":"asked",` + hello + `,` + usageAsked + `,"stop":["ab","\n\n"],"max_tokens":5}`
		if tools {
			ask = strings.Replace(ask, `{`, `{"tools":[{}],`, 1)
		}
		var out bytes.Buffer
		_, err := mustPlan(t, ask, Chat).Stream(&out, bytes.NewReader(stream))
		ended := bytes.HasSuffix(out.Bytes(), []byte("data: [DONE]\n\n"))
		if ended != (err == nil) {
			t.Fatalf("error %v, and the stream ends as %q", err, out.Bytes())
		}
		for event := range strings.SplitSeq(strings.TrimSuffix(out.String(), "\n\n"), "\n\n") {
			data, ok := strings.CutPrefix(event, "data: ")
			if event != "" && (!ok || data != "[DONE]" && !json.Valid([]byte(data))) {
				t.Fatalf("event %q", event)
			}
		}
	})
}

// A clean engine's stream says the same after it was repaired: what is joined of both is the same, but for what is
// always written anew.
func TestCleanStreamsPassUnchanged(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "join", "c*.sse"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			stream := recorded(t, filepath.Join("..", "join", filepath.Base(file)))
			kind := Chat
			if strings.HasPrefix(filepath.Base(file), "completion") {
				kind = Completion
			}
			want, wantErr := Join(bytes.NewReader(stream), kind)
			p := &Plan{kind: kind, repairs: LlamaAPIServer, model: "asked", usage: true}
			for _, r := range []io.Reader{bytes.NewReader(stream), oneByte{bytes.NewReader(stream)}} {
				var out bytes.Buffer
				_, err := p.Stream(&out, r)
				if (err == nil) != (wantErr == nil) {
					t.Fatalf("repaired: %v, as it is: %v", err, wantErr)
				}
				if err != nil {
					return
				}
				got, err := Join(&out, kind)
				if err != nil {
					t.Fatal(err)
				}
				if g, w := essence(t, got), essence(t, want); g != w {
					t.Errorf("got  %s\nwant %s", g, w)
				}
			}
		})
	}
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// essence is what counts of an answer.
func essence(t *testing.T, answer []byte) string {
	t.Helper()
	var a map[string]any
	if err := json.Unmarshal(answer, &a); err != nil {
		t.Fatal(err)
	}
	for _, anew := range []string{"id", "created", "model", "system_fingerprint"} {
		delete(a, anew)
	}
	if usage, ok := a["usage"].(map[string]any); ok {
		delete(usage, "prompt_tokens_details")
		delete(usage, "completion_tokens_details")
	}
	for _, c := range a["choices"].([]any) {
		delete(c.(map[string]any), "logprobs")
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// FuzzText: strings are read and written as encoding/json does.
func FuzzText(f *testing.F) {
	f.Add(`"a\u00e9\ud83d\ude00\ud83d\n\/"`)
	f.Add("\"\xff\xc3\"")
	f.Fuzz(func(t *testing.T, value string) {
		var want string
		if json.Unmarshal([]byte(value), &want) != nil {
			var quoted string
			if err := json.Unmarshal(appendQuoted(nil, value), &quoted); err != nil || quoted != strings.ToValidUTF8(value, "\uFFFD") && utf8.ValidString(value) {
				t.Fatalf("%q is written as %s: %v", value, appendQuoted(nil, value), err)
			}
			return
		}
		value = strings.TrimSpace(value)
		if value[0] != '"' {
			return
		}
		got := appendUnquoted(nil, []byte(value[1:len(value)-1]))
		if s := strings.ToValidUTF8(string(got), "\uFFFD"); utf8.ValidString(value) && s != want {
			t.Fatalf("%s is read as %q, want %q", value, s, want)
		}
	})
}

// FuzzPlan: what is sent is JSON again, and has nothing in it that the engine would take amiss.
func FuzzPlan(f *testing.F) {
	f.Add(`{"messages":[{"role":"system","content":[{"type":"text","text":"a"}]}],"stop":["x"],"max_tokens":3,"tools":[{}],"n":2,"drop_params":true}`, uint8(0))
	f.Add(`{"prompt":["a"],"stream":true,"max_tokens":-1}`, uint8(1))
	f.Add(`{"\u0069nput":["a"],"encoding_format":"base64","user":"me"}`, uint8(2))
	f.Add(`{ }`, uint8(2))
	f.Fuzz(func(t *testing.T, body string, kind uint8) {
		req, err := Scan([]byte(body))
		if err != nil {
			return
		}
		d := Dialect{Repairs: LlamaAPIServer, Model: "own", Context: 100}
		p, err := NewPlan([]byte(body), req, "default", Kind(kind%3), d)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Status != 400 {
				t.Fatalf("error %v", err)
			}
			return
		}
		out := p.Body([]byte(body))
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(out, &fields); err != nil {
			t.Fatalf("%v: %s becomes %s", err, body, out)
		}
		for _, gone := range []string{"user", "drop_params"} {
			if v, ok := fields[gone]; ok && string(v) != "null" {
				t.Fatalf("%s is sent: %s", gone, out)
			}
		}
		if string(fields["model"]) != `"own"` {
			t.Fatalf("the model is not the engine's: %s", out)
		}
	})
}
