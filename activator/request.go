package activator

// Request is what is asked for, and by whom.
type Request struct {
	Key          string // the model's
	Client       uint64 // who is treated as one where turns are taken: a hash of the API key, else of the peer's address
	Conversation uint64 // a hash of the beginning of the prompt, which further turns share; 0 = none
	Bytes        int64  // what is held of it while it waits: the length of its body

	Path string // of its URL, and its body: looked at if a context is to be restored for it
	Body []byte
}
