package openai

import (
	"github.com/cespare/xxhash/v2"
)

// How much of a conversation's beginning makes its key, in bytes. A chat's reaches to the end of the first user
// message, which may be an image of megabytes, so that it is cut; a prompt has no such end, and the next turn's
// goes on where this one's ended, so that only what is surely in both counts.
const (
	maxKeyed       = 64 << 10
	maxKeyedPrompt = 512
)

// ConversationKey returns a number that all turns of a conversation have in common, 0 if the request does not show
// one. body is what Scan made req of. It is a hint, to send turns where the ones before went: equal keys don't prove
// equal beginnings, and whoever needs that has to compare.
//
// The key of a chat is a hash of its messages up to the first of a user's, each as it was written. The key of a text
// completion is one of the beginning of its prompt, the first of several. It is the same in every process.
func ConversationKey(body []byte, req Request) uint64 {
	switch {
	case req.MessagesSpan != [2]int{}:
		return chatKey(body[req.MessagesSpan[0]:req.MessagesSpan[1]])
	case req.PromptSpan != [2]int{}:
		return promptKey(body[req.PromptSpan[0]:req.PromptSpan[1]])
	}
	return 0
}

// chatKey walks the messages, a scanned value, only as far as the first of a user's or maxKeyed bytes.
func chatKey(messages []byte) uint64 {
	s := scanner{b: messages[:min(len(messages), maxKeyed)]}
	if s.next() != '[' {
		return 0
	}
	var key keyHash
	for s.i++; s.next() != ']'; {
		if s.next() == ',' {
			s.i++
			continue
		}
		from := s.i
		user, err := s.message()
		if err != nil { // this is where the text was cut
			key.add(s.b[from:])
			return key.sum()
		}
		key.add(s.b[from:s.i])
		if user {
			return key.sum()
		}
	}
	return 0
}

// message skips the element of an array that opens at the next byte and says whether it is an object with
// "role":"user". Of several roles the last one counts, as it does for the engines.
func (s *scanner) message() (user bool, err error) {
	if s.next() != '{' {
		return false, s.value(depthOfMessage)
	}
	err = s.object(depthOfMessage, func(name []byte, from, to int) error {
		if string(name) == "role" {
			user = stringIs(s.b[from:to], "user")
		}
		return nil
	})
	return user, err
}

// depthOfMessage is how deep a message is nested in a request.
const depthOfMessage = 3

// promptKey makes the key of a scanned prompt: a string, or an array whose first element is one, or of tokens.
func promptKey(prompt []byte) uint64 {
	if prompt[0] == '[' {
		s := scanner{b: prompt, i: 1}
		if s.next() == '"' {
			from := s.i
			if _, err := s.str(); err != nil { // it was scanned before: it can't be
				return 0
			}
			prompt = prompt[from:s.i]
		}
	}
	if prompt[0] != '"' && prompt[0] != '[' || len(prompt) <= 2 {
		return 0
	}
	var key keyHash
	inside := prompt[1 : len(prompt)-1]
	key.add(inside[:min(len(inside), maxKeyedPrompt)])
	return key.sum()
}

// keyHash makes a key of pieces. The zero value is ready.
type keyHash struct {
	digest xxhash.Digest
	begun  bool
}

// add takes in a piece and its end.
func (k *keyHash) add(piece []byte) {
	if !k.begun {
		k.digest.Reset()
		k.begun = true
	}
	_, _ = k.digest.Write(piece)     // never fails
	_, _ = k.digest.Write([]byte{0}) // which JSON text does not hold
}

// sum is never 0, which is no key.
func (k *keyHash) sum() uint64 { return max(1, k.digest.Sum64()) }
