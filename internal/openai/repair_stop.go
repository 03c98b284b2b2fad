package openai

import "bytes"

// Bounds of stop, of which the API allows 4.
const (
	maxStops    = 32
	maxStopSize = 4 << 10 // bytes of all together
)

// stopIn finds the stop sequence that text completes first, and returns where it begins; -1 if there is none. Which one
// is found does not depend on the pieces that the text came in: text is what is held and the next piece, and whatever of
// a sequence had come before is held.
func stopIn(text []byte, stops [][]byte) int {
	found, end := -1, len(text)+1
	for _, stop := range stops {
		at := bytes.Index(text, stop)
		if at < 0 {
			continue
		}
		if e := at + len(stop); e < end || e == end && at < found {
			found, end = at, e
		}
	}
	return found
}

// stopBegun returns how many bytes at the end of text are the beginning of a stop sequence.
func stopBegun(text []byte, stops [][]byte) int {
	longest := 0
	for _, stop := range stops {
		for n := min(len(stop)-1, len(text)); n > longest; n-- {
			if bytes.HasSuffix(text, stop[:n]) {
				longest = n
			}
		}
	}
	return longest
}
