package dialect

import (
	"errors"
	"strings"
	"testing"

	"assistant/internal/openai"
)

func TestRequestsAreObjects(t *testing.T) {
	for body, says := range map[string]string{"": "JSON", "{": "JSON", "{} {}": "JSON", "[]": "not an object", "null": "not an object"} {
		if _, err := ReadRequest([]byte(body)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v", body, err)
		}
	}
	o, err := ReadRequest([]byte("\n{\"a\":1,\"a\":\"x\\n\",\"\\u0062\":\"y\",\"c\":null,\"d\":2,\"d\":null} "))
	if err != nil || len(o.Fields) != 2 || !o.Has("a") || o.Has("c") || Unquote(o.Fields["a"]) != "x\n" || string(Inside(o.Fields["b"])) != "y" {
		t.Errorf("got %q, %v", o.Fields, err)
	}
}

func TestFieldsAreRead(t *testing.T) {
	const body = `{"text":"a\u00e9","yes":true,"no":false,"number":-1.5,"count":3,"object":{"in":{"x":[1]}},"array":["a",{"b":1}]}`
	o, err := ReadRequest([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := o.Text("text")
	quoted, _ := o.NeedQuoted("text")
	yes, _ := o.Flag("yes")
	no, _ := o.Flag("no")
	number, _ := o.Number("number")
	count, _ := o.Count("count")
	array, _ := o.Array("array")
	object, _ := o.Object("object")
	inner, _ := object.Object("in")
	if text != "aé" || string(quoted) != `"a\u00e9"` || !yes || no || string(number) != "-1.5" || count != 3 || len(array) != 2 || inner.Where("x") != "object.in.x" {
		t.Errorf("got %q %s %t %t %s %d %q %q", text, quoted, yes, no, number, count, array, inner.Where("x"))
	}
	text, textErr := o.Text("x")
	no, flagErr := o.Flag("x")
	number, numberErr := o.Number("x")
	count, countErr := o.Count("x")
	array, arrayErr := o.Array("x")
	object, objectErr := o.Object("x")
	if err := errors.Join(textErr, flagErr, numberErr, countErr, arrayErr, objectErr); err != nil || text != "" || no || number != nil || count != -1 || array != nil || object.Has("y") {
		t.Errorf("what is not there: %v", err)
	}
}

func TestFieldsAreBlamed(t *testing.T) {
	o, err := ReadObject(Element("list", 2), []byte(`{"n":1,"s":"x","half":0.5}`))
	if err != nil {
		t.Fatal(err)
	}
	for param, read := range map[string]func() error{
		"list[2].gone": func() error { _, err := o.NeedQuoted("gone"); return err },
		"list[2].n":    func() error { _, err := o.Text("n"); return err },
		"list[2].s":    func() error { _, err := o.Number("s"); return err },
		"list[2].half": func() error { _, err := o.Count("half"); return err },
	} {
		var e *openai.Error
		if !errors.As(read(), &e) || e.Status != 400 || e.Param != param || !strings.Contains(e.Message, param) {
			t.Errorf("%s: got %+v", param, e)
		}
	}
	for _, read := range []func() error{
		func() error { _, err := o.Flag("s"); return err },
		func() error { _, err := o.Array("s"); return err },
		func() error { _, err := o.Object("s"); return err },
	} {
		if err := read(); err == nil || !strings.Contains(err.Error(), `"list[2].s" must be`) {
			t.Errorf("got %v", err)
		}
	}
}

func TestSchemasAreWritten(t *testing.T) {
	var b openai.Builder
	b.Open('{')
	WriteSchema(&b, []byte(`{"type":"object"}`))
	b.Close('}')
	const want = `{"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"type":"object"}}}}`
	if string(b.Buf) != want {
		t.Errorf("got %s", b.Buf)
	}
}
