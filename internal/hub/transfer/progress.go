package transfer

import (
	"sync"
	"sync/atomic"
	"time"
)

// tellEvery is how often progress is told at most.
const tellEvery = 100 * time.Millisecond

// progress tells how much is here, at the beginning, whenever that changed, and at the end.
type progress struct {
	done  atomic.Int64
	total atomic.Int64 // -1 = not known
	tell  func(done, total int64)

	end  chan struct{}
	gone sync.WaitGroup
}

func startProgress(done, total int64, tell func(done, total int64)) *progress {
	p := &progress{tell: tell, end: make(chan struct{})}
	p.done.Store(done)
	p.total.Store(total)
	tell(done, total)
	p.gone.Go(func() { p.follow(done) })
	return p
}

func (p *progress) follow(told int64) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.end:
			return
		}
		if now := p.done.Load(); now != told {
			p.tell(now, p.total.Load())
			told = now
		}
	}
}

// stop tells the last time, and nothing after that.
func (p *progress) stop() {
	close(p.end)
	p.gone.Wait()
	p.tell(p.done.Load(), p.total.Load())
}
