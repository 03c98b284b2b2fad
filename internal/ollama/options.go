package ollama

import (
	"strconv"

	"assistant/internal/dialect"
)

// passed are the options that engines take: OpenAI's own, and llama-server's under its names. What is said of a model when it is loaded,
// as num_ctx and num_gpu, is in the model's file here and ignored, as is what llama-server has no more.
var passed = []struct{ name, as string }{
	{"temperature", "temperature"},
	{"top_p", "top_p"},
	{"top_k", "top_k"},
	{"min_p", "min_p"},
	{"typical_p", "typical_p"},
	{"repeat_penalty", "repeat_penalty"},
	{"presence_penalty", "presence_penalty"},
	{"frequency_penalty", "frequency_penalty"},
	{"mirostat", "mirostat"},
	{"mirostat_tau", "mirostat_tau"},
	{"mirostat_eta", "mirostat_eta"},
	{"num_keep", "n_keep"},
}

// counts are the options of which a negative number says that the engine is to do as it likes, which it does if it is not told. So does 0
// where least is 1.
var counts = []struct {
	name, as string
	least    int64
}{
	{"num_predict", "max_tokens", 1},
	{"seed", "seed", 0},
	{"repeat_last_n", "repeat_last_n", 0},
}

// options writes what bounds and steers the answer.
func options(b *builder, req dialect.Object) error {
	o, err := req.Object("options")
	if err != nil {
		return err
	}
	for _, option := range passed {
		value, err := o.Number(option.name)
		if err != nil {
			return err
		}
		b.Field(option.as, value)
	}
	for _, option := range counts {
		value, err := o.Number(option.name)
		if err != nil {
			return err
		}
		if value == nil {
			continue
		}
		f, err := strconv.ParseFloat(string(value), 64) // clients write 100.0
		n := int64(f)
		if err != nil || float64(n) != f {
			return dialect.MustBe(o.Where(option.name), "a whole number")
		}
		if n >= option.least {
			b.Field(option.as, strconv.AppendInt(nil, n, 10))
		}
	}
	return stops(b, o)
}

// stops writes the texts that end an answer.
func stops(b *builder, options dialect.Object) error {
	raw := options.Fields["stop"]
	if raw == nil || string(raw) == `""` {
		return nil
	}
	if raw[0] != '"' {
		list, err := texts(options, "stop")
		if err != nil || len(list) == 0 {
			return err
		}
	}
	b.Field("stop", raw)
	return nil
}

// texts reads an array of strings.
func texts(o dialect.Object, name string) ([][]byte, error) {
	list, err := o.Array(name)
	if err != nil {
		return nil, dialect.MustBe(o.Where(name), "a string or an array of strings")
	}
	for i, text := range list {
		if text[0] != '"' {
			return nil, dialect.MustBe(dialect.Element(o.Where(name), i), "a string")
		}
	}
	return list, nil
}
