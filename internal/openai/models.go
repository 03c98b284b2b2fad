package openai

// Values of ModelStatus.Value, as llama.cpp's router spells them and Open WebUI reads them.
const (
	StatusUnloaded    = "unloaded"
	StatusLoading     = "loading"
	StatusLoaded      = "loaded"
	StatusSleeping    = "sleeping"
	StatusDownloading = "downloading"
	StatusFailed      = "failed" // ours: clients take what they don't know for "not loaded"
)

// ModelCard is one model of GET /v1/models. Its shape is the union of what clients read: id, object, created and
// owned_by are OpenAI's; name, context_length and architecture are OpenRouter's; status, aliases, tags, path and
// meta are llama.cpp's. What is empty is left out: some clients fall over "name": null.
type ModelCard struct {
	ID            string         `json:"id"`
	Object        string         `json:"object"`  // always "model"; JSON fills it in
	Created       int64          `json:"created"` // seconds since 1970
	OwnedBy       string         `json:"owned_by"`
	Name          string         `json:"name,omitempty"`
	ContextLength int            `json:"context_length,omitempty"` // tokens
	Architecture  *Architecture  `json:"architecture,omitempty"`
	Status        *ModelStatus   `json:"status,omitempty"`
	Aliases       []string       `json:"aliases,omitempty"`
	Tags          []string       `json:"tags,omitempty"`
	Path          string         `json:"path,omitempty"`
	Meta          map[string]any `json:"meta,omitempty"`
}

// Architecture lists what goes into a model and what comes out: "text", "image", "audio", "embeddings", "rerank", "moderation".
type Architecture struct {
	InputModalities  []string `json:"input_modalities"`
	OutputModalities []string `json:"output_modalities"`
}

// ModelStatus is what the model does now.
type ModelStatus struct {
	Value    string              `json:"value"`
	Args     []string            `json:"args,omitempty"`
	Failed   bool                `json:"failed,omitempty"`
	ExitCode *int                `json:"exit_code,omitempty"`
	Progress map[string]Progress `json:"progress,omitempty"` // of a download, by file
	Error    string              `json:"error,omitempty"`    // why it failed, or why its file could not be read
}

// Progress is how much of a file is here, in bytes.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// ModelList is the answer to GET /v1/models.
type ModelList struct {
	Object string      `json:"object"` // always "list"; JSON fills it in
	Data   []ModelCard `json:"data"`
}

// JSON returns the card.
func (c ModelCard) JSON() []byte {
	c.Object = "model"
	return Marshal(c)
}

// JSON returns the list; one without models is [], not null.
func (l ModelList) JSON() []byte {
	cards := make([]ModelCard, len(l.Data))
	for i, card := range l.Data {
		card.Object = "model"
		cards[i] = card
	}
	return Marshal(ModelList{Object: "list", Data: cards})
}
