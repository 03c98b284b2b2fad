package openai

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// dropParams is the field by which a request says that what the engine can't honour may be ignored. LiteLLM has it, by
// this name and for this purpose (https://docs.litellm.ai/docs/completion/drop_params).
const dropParams = "drop_params"

// NewPlan plans how a request is sent to an engine with a dialect. req is what Scan made of body, name the model's name
// for a request that has none. Errors are *Error with status 400: the request is wrong, or asks for what the engine
// can't do.
func NewPlan(body []byte, req Request, name string, kind Kind, d Dialect) (*Plan, error) {
	p := &planner{d: d, body: body, plan: &Plan{
		kind: kind, repairs: d.Repairs, model: req.Model, stream: req.Stream, context: d.Context, first: req.first,
	}}
	if p.plan.model == "" {
		p.plan.model = name
	}
	s := scanner{b: body}
	s.space()
	if err := s.object(1, p.field); err != nil {
		return nil, blame(err)
	}
	if err := p.settle(); err != nil {
		return nil, err
	}
	sortEdits(p.plan.edits)
	return p.plan, nil
}

// planner makes a plan.
type planner struct {
	plan *Plan
	d    Dialect
	body []byte

	fields      []reqField // those with a rule, which are few
	unsupported []*Error   // in the order of the body
	drop        bool       // these may be ignored
	tools       bool       // there are some
	messages    int
}

// reqField is a field of the request.
type reqField struct {
	name  string
	value []byte
	span  [2]int
}

// rule looks at a field that is not null.
type rule func(p *planner, f reqField) error

// field takes note of a field that has a rule. Of such a field there can only be one: engines differ in which of two
// they obey.
func (p *planner) field(key []byte, from, to int) error {
	r, ok := p.rules()[string(key)]
	if !ok {
		return nil
	}
	f := reqField{string(key), p.body[from:to], [2]int{from, to}}
	if _, twice := p.find(f.name); twice {
		return InvalidRequest(f.name, fmt.Sprintf("%q is given more than once", f.name))
	}
	p.fields = append(p.fields, f)
	if r == nil || string(f.value) == "null" {
		return nil
	}
	return r(p, f)
}

func (p *planner) find(name string) (reqField, bool) {
	i := slices.IndexFunc(p.fields, func(f reqField) bool { return f.name == name })
	if i < 0 {
		return reqField{}, false
	}
	return p.fields[i], true
}

// set gives a field a value, which replaces one that is there.
func (p *planner) set(name, value string) {
	f, _ := p.find(name)
	p.plan.edits = append(p.plan.edits, edit{f.span, name, value})
}

// drops takes a field away, by a null: engines take that for "not given".
func (p *planner) drops(name string) {
	if f, ok := p.find(name); ok && string(f.value) != "null" {
		p.set(name, "null")
	}
}

// rules are those of the endpoint.
func (p *planner) rules() map[string]rule {
	switch p.plan.kind {
	case Chat:
		return chatRules
	case Completion:
		return completionRules
	default:
		return embeddingRules
	}
}

// Rules by field. nil is for one that is only set. What a neutral rule names are values that ask for nothing.
var (
	chatRules = map[string]rule{
		"model": nil, "stream": nil, "user": nil, "tool_choice": nil, "stream_options": (*planner).streamOptions,
		"max_tokens": (*planner).limit, "max_completion_tokens": (*planner).limit, "stop": (*planner).stop,
		"messages": (*planner).content, "tools": (*planner).toolList, dropParams: (*planner).mayDrop,
		"response_format": (*planner).format, "n": neutral("1"), "logprobs": neutral("false"), "top_logprobs": neutral("0"),
		"logit_bias": neutral("{}"), "top_k": neutral(), "min_p": neutral("0", "0.0"), "functions": neutral("[]"),
		"grammar": neutral(`""`), "json_schema": neutral("{}"), "modalities": neutral(`["text"]`), "audio": neutral(),
		"seed": (*planner).hint, "parallel_tool_calls": (*planner).hint,
	}
	completionRules = map[string]rule{
		"model": nil, "stream": nil, "user": nil, "stream_options": (*planner).streamOptions,
		"max_tokens": (*planner).limit, "stop": (*planner).stop, "prompt": (*planner).prompt,
		dropParams: (*planner).mayDrop, "n": neutral("1"), "best_of": neutral("1"), "echo": neutral("false"),
		"suffix": neutral(`""`), "logprobs": neutral("0", "false"), "logit_bias": neutral("{}"), "top_k": neutral(),
		"min_p": neutral("0", "0.0"), "grammar": neutral(`""`), "json_schema": neutral("{}"), "seed": (*planner).hint,
	}
	embeddingRules = map[string]rule{
		"model": nil, "user": nil, "encoding_format": (*planner).encoding, "input": (*planner).input,
		"dimensions": neutral(), dropParams: (*planner).mayDrop,
	}
)

// neutral is the rule of a parameter that the engine ignores.
func neutral(values ...string) rule {
	return func(p *planner, f reqField) error {
		if !slices.Contains(values, string(f.value)) {
			p.refuse(f.name, fmt.Sprintf("%q is not supported by this model's engine", f.name))
		}
		return nil
	}
}

// refuse notes a parameter that can't be honoured.
func (p *planner) refuse(name, message string) {
	if !p.d.Repairs.Has(RepairUnsupported) {
		return
	}
	e := InvalidRequest(name, message+`: leave it out, or add "`+dropParams+`": true to have it ignored`)
	e.Code = "unsupported_parameter"
	p.unsupported = append(p.unsupported, e)
}

// hint is the rule of a parameter that the API lets a server not honour, as long as the client can know.
func (p *planner) hint(f reqField) error {
	if p.d.Repairs.Has(RepairUnsupported) {
		p.plan.Ignored = append(p.plan.Ignored, f.name)
	}
	return nil
}

func (p *planner) mayDrop(f reqField) error {
	p.drop = string(f.value) == "true"
	if !p.drop && string(f.value) != "false" {
		return InvalidRequest(f.name, fmt.Sprintf("%q must be true or false", f.name))
	}
	return nil
}

// format is the rule of response_format.
func (p *planner) format(f reqField) error {
	var kind []byte
	if f.value[0] != '{' {
		return InvalidRequest(f.name, fmt.Sprintf("%q must be an object", f.name))
	}
	_ = EachField(f.value, func(key, value []byte) error { // it was scanned: it can't fail
		if string(key) == "type" {
			kind = value
		}
		return nil
	})
	if string(kind) != `"text"` {
		p.refuse(f.name, `a "response_format" other than text is not supported by this model's engine`)
	}
	return nil
}

// streamOptions is the rule of stream_options.
func (p *planner) streamOptions(f reqField) error {
	if f.value[0] != '{' {
		return InvalidRequest(f.name, fmt.Sprintf("%q must be an object", f.name))
	}
	return EachField(f.value, func(key, value []byte) error {
		if string(key) == "include_usage" {
			p.plan.usage = string(value) == "true"
		}
		return nil
	})
}

// limit is the rule of max_tokens and max_completion_tokens: the lesser counts. -1 is how some clients say "none".
func (p *planner) limit(f reqField) error {
	n, err := strconv.Atoi(string(f.value))
	if err != nil || n == 0 || n < -1 {
		return InvalidRequest(f.name, fmt.Sprintf("%q must be a whole number of 1 or more", f.name))
	}
	if p.d.Repairs.Has(RepairMaxTokens) && 0 < n && n < math.MaxInt32 && (p.plan.maxTokens == 0 || n < p.plan.maxTokens) {
		p.plan.maxTokens = n
	}
	return nil
}

// stop is the rule of stop: a string or an array of them. An empty one asks for nothing.
func (p *planner) stop(f reqField) error {
	if !p.d.Repairs.Has(RepairStop) {
		return nil
	}
	list, ok := stringsOf(f.value)
	if !ok {
		return InvalidRequest(f.name, `"stop" must be a string or an array of strings`)
	}
	size := 0
	for _, stop := range list {
		if len(stop) > 0 {
			p.plan.stops = append(p.plan.stops, stop)
			size += len(stop)
		}
	}
	if len(p.plan.stops) > maxStops || size > maxStopSize {
		return InvalidRequest(f.name, fmt.Sprintf(`"stop" has more than %d sequences or %d bytes`, maxStops, maxStopSize))
	}
	return nil
}

// stringsOf returns what a string, or an array of strings, says.
func stringsOf(value []byte) (list [][]byte, ok bool) {
	if value[0] == '"' {
		return [][]byte{appendUnquoted(nil, value[1:len(value)-1])}, true
	}
	s := scanner{b: value}
	ok = true
	err := s.each(func(from, to int) error {
		if value[from] != '"' {
			ok = false
			return nil
		}
		list = append(list, appendUnquoted(nil, value[from+1:to-1]))
		return nil
	})
	return list, ok && err == nil
}

// toolList is the rule of tools.
func (p *planner) toolList(f reqField) error {
	s := scanner{b: f.value, i: 1}
	p.tools = f.value[0] == '[' && s.next() != ']'
	return nil
}

// prompt is the rule of prompt. The engine would make one text of an array's, and can't read tokens.
func (p *planner) prompt(f reqField) error {
	if !p.d.Repairs.Has(RepairCompletions) {
		return nil
	}
	p.plan.prompt = tokensIn(len(f.value))
	if f.value[0] == '"' {
		return nil
	}
	list, ok := stringsOf(f.value)
	switch {
	case !ok:
		return InvalidRequest(f.name, `"prompt" must be text: this model's engine can't read tokens`)
	case len(list) != 1:
		return InvalidRequest(f.name, `"prompt" must be one text: this model's engine answers one at a time`)
	}
	p.set(f.name, string(appendQuoted(nil, list[0])))
	return nil
}

// encoding is the rule of encoding_format.
func (p *planner) encoding(f reqField) error {
	switch string(f.value) {
	case `"base64"`:
		p.plan.base64 = p.d.Repairs.Has(RepairEmbeddings)
	case `"float"`:
	default:
		return InvalidRequest(f.name, `"encoding_format" must be float or base64`)
	}
	return nil
}

// input is the rule of input.
func (p *planner) input(f reqField) error {
	if !p.d.Repairs.Has(RepairEmbeddings) {
		return nil
	}
	p.plan.prompt = tokensIn(len(f.value))
	list, ok := stringsOf(f.value)
	switch {
	case !ok:
		return InvalidRequest(f.name, `"input" must be a string or an array of strings: this model's engine can't read tokens`+
			` (LangChain sends text with check_embedding_ctx_length=False)`)
	case len(list) == 0 || slices.ContainsFunc(list, func(text []byte) bool { return len(text) == 0 }):
		return InvalidRequest(f.name, `"input" is empty`)
	}
	return nil
}

// tokensIn guesses how many tokens so many bytes of text are.
func tokensIn(size int) int { return (size + 3) / 4 }

// settle decides what is sent, once all fields are known.
func (p *planner) settle() error {
	for _, e := range p.unsupported {
		if !p.drop {
			return e
		}
		p.plan.Ignored = append(p.plan.Ignored, e.Param)
		p.drops(e.Param)
	}
	p.drops(dropParams)
	p.drops("user")
	if p.d.Model != "" {
		p.set("model", string(appendQuoted(nil, p.d.Model)))
	}
	switch p.plan.kind {
	case Chat:
		return p.settleChat()
	case Completion:
		p.settleCompletion()
	default:
		if p.plan.base64 {
			p.set("encoding_format", `"float"`)
		}
	}
	return nil
}

// settleChat asks for a stream, whatever the client asked for: in no other way can the engine be stopped.
func (p *planner) settleChat() error {
	if _, ok := p.find("messages"); !ok {
		return InvalidRequest("messages", `you must give "messages"`)
	}
	p.set("stream", "true")
	p.set("stream_options", `{"include_usage":true}`)
	if len(p.plan.stops) > 0 {
		p.drops("stop")
	}
	if p.plan.maxTokens > 0 {
		p.drops("max_tokens")
		p.set("max_completion_tokens", strconv.Itoa(p.plan.maxTokens))
	} else if p.d.Repairs.Has(RepairMaxTokens) {
		p.drops("max_tokens")
		p.drops("max_completion_tokens")
	}
	p.settleTools()
	p.plan.Pruned = p.d.Repairs.Has(RepairPruning) && p.d.Context > 0 && p.messages > 1 &&
		p.plan.prompt > p.d.Context*4/5
	return nil
}

// settleTools asks for the default of tool_choice. An engine that may call tools gives its text as a whole.
func (p *planner) settleTools() {
	choice, ok := p.find("tool_choice")
	missing := !ok || string(choice.value) == "null"
	if p.tools && missing && p.d.Repairs.Has(RepairToolChoice) {
		p.set("tool_choice", `"auto"`)
		missing = false
	}
	p.plan.whole = p.d.Repairs.Has(RepairToolChoice) && p.tools && !missing && string(choice.value) != `"none"`
}

// settleCompletion asks for a whole where the engine has nothing else.
func (p *planner) settleCompletion() {
	if p.d.Repairs.Has(RepairStop) {
		p.drops("stop")
	}
	if !p.d.Repairs.Has(RepairCompletions) {
		p.set("stream", "true")
		p.set("stream_options", `{"include_usage":true}`)
		return
	}
	p.plan.whole = true
	p.drops("stream")
	p.drops("stream_options")
	if p.plan.maxTokens == 0 {
		p.drops("max_tokens")
	}
}
