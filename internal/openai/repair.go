package openai

// Some engines speak a dialect of the API that clients trip over. What has to be made up for is declared for each kind
// of engine as a set of Repairs. A [Plan] says, for one request, what the engine is sent instead, and makes of its
// answer the one that the API promises. Engines that need nothing never come here.

// Repairs is a set of things in an engine's dialect that are made up for.
type Repairs uint32

// The repairs. Numbers are those of llama-api-server's quirks as listed in docs/dialects.md.
const (
	// RepairAnswers writes every answer anew. Streams begin with the role and end with exactly one true finish_reason,
	// which engines leave out, or say "stop" whatever ended (1, 2); token counts are there if and only if they were
	// asked for (2); the model is echoed as asked, not by the engine's own name for it (7); each answer has an id of
	// its own, which is not the request's user, and no constant system_fingerprint (8); errors, which were plain text
	// and nearly all 500, are error objects with a true status (10).
	RepairAnswers Repairs = 1 << iota
	// RepairToolChoice asks for tool_choice "auto" where a request has tools and says nothing, as the API defines (3).
	RepairToolChoice
	// RepairMaxTokens ends an answer after exactly as many tokens as asked for, by counting chunks, of which the engine
	// sends one a token. It ignores max_tokens, and takes max_completion_tokens as at least a fifth of its context (4).
	RepairMaxTokens
	// RepairStop applies stop, which the engine refuses as a string and ignores as an array (5).
	RepairStop
	// RepairUnsupported refuses parameters that the engine would silently ignore (6).
	RepairUnsupported
	// RepairContent makes strings of content parts, which the engine takes from users only (9).
	RepairContent
	// RepairPruning tells a client that the engine may have dropped the oldest messages (11).
	RepairPruning
	// RepairOverflow takes the mark of a full context out of the text: the answer then ends with "length" (12).
	RepairOverflow
	// RepairCompletions streams text completions, which the engine can only give as a whole (16).
	RepairCompletions
	// RepairEmbeddings gives vectors in base64 where asked for, and refuses inputs in tokens, of which the engine would
	// embed the digits (16).
	RepairEmbeddings
)

// LlamaAPIServer is what LlamaEdge's llama-api-server needs, as of 0.28. Of its other quirks 13 and 15 (keys, static
// files) are settled by what the router forwards at all, 14 and 17 (requests that overwrite each other) by the one slot
// that an instance has.
const LlamaAPIServer = RepairAnswers | RepairToolChoice | RepairMaxTokens | RepairStop | RepairUnsupported |
	RepairContent | RepairPruning | RepairOverflow | RepairCompletions | RepairEmbeddings

// Has says whether all of some repairs are in the set.
func (r Repairs) Has(some Repairs) bool { return r&some == some }

// Dialect is what a plan has to know of an engine.
type Dialect struct {
	Repairs Repairs
	Model   string // what the engine calls the model; "" = it is sent the name that the client wrote
	Context int    // tokens that the engine's context holds; 0 = unknown
	Images  bool   // the model sees images
}

// Plan is how one request to an engine with a dialect is sent, and its answer given. It does not change once made.
type Plan struct {
	// Ignored are the parameters that the engine won't honour and the client is to know of.
	Ignored []string
	// Pruned says that the conversation is so long that the engine probably drops its oldest messages.
	Pruned bool

	kind      Kind
	repairs   Repairs
	model     string // as the client wrote it
	stream    bool   // the client asked for a stream
	usage     bool   // and for the token counts in it
	maxTokens int    // 0 = no bound
	stops     [][]byte
	context   int
	whole     bool // the engine gives the text in one piece, not in tokens
	base64    bool // vectors are to be in base64
	prompt    int  // tokens of the prompt, by a guess
	first     int  // where a field can be put into the body
	edits     []edit
}

// Body returns the body to send: a copy of the client's own, which the plan was made for, with some fields changed.
func (p *Plan) Body(body []byte) []byte { return edited(body, p.first, p.edits) }
