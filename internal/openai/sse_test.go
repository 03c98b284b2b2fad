package openai

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestEventReader(t *testing.T) {
	long := strings.Repeat("0123456789abcde ", 1000) // beyond bufio's buffer
	for _, tt := range []struct {
		name   string
		stream string
		want   []string
		err    error
	}{
		{"none", "", nil, io.EOF},
		{"two", "data: a\n\ndata: b\n\n", []string{"a", "b"}, io.EOF},
		{"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}, io.EOF},
		{"no space", "data:a\n\ndata:  b\n\n", []string{"a", " b"}, io.EOF},
		{"lines", "data: a\ndata: b\ndata\n\n", []string{"a\nb\n"}, io.EOF},
		{"comments", ": hi\ndata: a\n: there\n\n:\n\n: b\n\ndata: c\n\n", []string{"a", "c"}, io.EOF},
		{"other fields", "event: x\nid: 1\nretry: 5\ndata: a\n\ndatabase: no\n\n", []string{"a"}, io.EOF},
		{"without data", "data: \n\ndata\n\nevent: ping\n\ndata: a\n\n", []string{"a"}, io.EOF},
		{"many blank lines", "\n\n\ndata: a\n\n\n\n", []string{"a"}, io.EOF},
		{"long", "data: " + long + "\n\n: " + long + "\n\ndata: " + long + "\r\ndata: b\r\n\r\n", []string{long, long + "\nb"}, io.EOF},
		{"cut in a line", "data: a\n\ndata: b", []string{"a"}, io.ErrUnexpectedEOF},
		{"cut in a long line", "data: " + long, nil, io.ErrUnexpectedEOF},
		{"cut behind a line", "data: a\n\ndata: b\n", []string{"a"}, io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"whole":  strings.NewReader(tt.stream),
				"bytes":  iotest.OneByteReader(strings.NewReader(tt.stream)),
				"halves": iotest.HalfReader(strings.NewReader(tt.stream)),
			} {
				events := NewEventReader(r)
				var got []string
				var err error
				for {
					var event []byte
					if event, err = events.Next(); err != nil {
						break
					}
					got = append(got, string(event))
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
				if !errors.Is(err, tt.err) {
					t.Errorf("%s: got %v, want %v", name, err, tt.err)
				}
			}
		})
	}
}

func TestEventReaderBounds(t *testing.T) {
	for name, endless := range map[string]io.Reader{
		"line":  io.MultiReader(strings.NewReader("data: "), repeat("x")),
		"lines": repeat("data: xxxxxxxx\n"),
	} {
		if _, err := NewEventReader(endless).Next(); !errors.Is(err, ErrEventTooLarge) {
			t.Errorf("endless %s: got %v", name, err)
		}
	}
}

func FuzzEventReader(f *testing.F) {
	f.Add([]byte("data: a\r\ndata:b\n\n: c\n\nevent: x\ndata\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		events := NewEventReader(strings.NewReader(string(stream)))
		for {
			event, err := events.Next()
			if err != nil {
				return
			}
			if len(event) == 0 || len(event) > len(stream) {
				t.Fatalf("event of %d bytes in %d", len(event), len(stream))
			}
		}
	})
}
