package transfer

import (
	"context"
	"errors"
	"sync"
)

// places are where a file is to be had now. All connections share what is learnt of them.
type places struct {
	mu      sync.Mutex
	list    []Location
	at      int // the one to ask
	version int // how often they were asked for
	skip    int // of the next list
}

// current is the place to ask, which is asked for if it is not known.
func (p *places) current(ctx context.Context, locate func(context.Context) ([]Location, error)) (Location, int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list == nil {
		list, err := locate(ctx)
		if err != nil {
			return Location{}, p.version, err
		}
		if len(list) == 0 {
			return Location{}, p.version, errors.New("the file is nowhere to be had")
		}
		p.list, p.at = list, p.skip%len(list)
		p.version++
	}
	return p.list[p.at], p.version<<8 | p.at, nil
}

// failed has the next place be asked, and after the last one all be asked for anew. what is the place that failed: of several connections
// that find so, one moves on.
func (p *places) failed(what int, expired bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list == nil || what != p.version<<8|p.at {
		return
	}
	if expired || p.at+1 >= len(p.list) {
		p.list = nil
		return
	}
	p.at++
}

// rotate begins with the next place from now on.
func (p *places) rotate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skip++
	p.list = nil
}
