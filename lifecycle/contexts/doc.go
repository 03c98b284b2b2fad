// Package contexts keeps what an engine has computed of its conversations while no engine runs.
//
// An instance that stops has its slots saved (Save); the next one is given back what a waiting request begins with
// (Restore); what the engine then says it reused tells whether that was right (Verify). The files hold what people
// said, so only this user can read them, and they are bounded in bytes and in age.
//
// # Which conversation a file holds
//
// The file says so itself: llama-server writes the tokens of a slot in front of its state. They are read when the
// slot is saved, and when a request waits, the engine that is to answer it is asked for the request's own tokens
// (/apply-template, /tokenize). So a file is chosen by the longest common beginning in the engine's own terms, which
// needs nothing of the requests on their way (no slot pinned, no answer read), holds whatever a client did meanwhile,
// and also finds the beginning that different conversations share, such as a long system prompt.
//
// # Trust
//
// A file never reaches an engine whose model, arguments and build are not those that made it, nor before its length
// and checksum were found right: of the damaged files that were tried on llama-server, some ended it and some were
// taken and answered wrongly.
package contexts
