package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// parts brings the parts that are missing, over several connections.
func (t *fetch) parts(ctx context.Context, file *os.File) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &work{fetch: t, file: file, more: sync.NewCond(new(sync.Mutex)), here: startProgress(t.journal.have(), t.journal.head.Size, t.Progress)}
	defer w.here.stop()
	defer context.AfterFunc(ctx, w.wake)()
	var all sync.WaitGroup
	for range min(t.Connections, t.journal.head.parts()) {
		all.Go(func() {
			if err := w.bring(ctx); err != nil {
				cancel(err)
			}
		})
	}
	sum, err := w.hash(ctx)
	if err != nil {
		cancel(err)
	}
	all.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return Result{}, cause
	}
	return Result{t.journal.head.Size, sum}, nil
}

// work is what connections and the hash share.
type work struct {
	*fetch
	file *os.File
	more *sync.Cond // a part is whole, or the work ends; its lock guards the journal and the rest
	next int        // the first part that nobody has taken
	here *progress
}

func (w *work) wake() {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	w.more.Broadcast()
}

// take is the next part that is to be brought; false if there is none.
func (w *work) take() (int, bool) {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	for w.next < len(w.journal.done) {
		part := w.next
		w.next++
		if !w.journal.done[part] {
			return part, true
		}
	}
	return 0, false
}

// bring brings parts until there are no more.
func (w *work) bring(ctx context.Context) error {
	buf := make([]byte, bufferSize)
	for {
		part, ok := w.take()
		if !ok {
			return nil
		}
		if err := w.bringPart(ctx, part, buf); err != nil {
			return err
		}
		if err := w.whole(part); err != nil {
			return fmt.Errorf("%w: %w", errDisk, err)
		}
	}
}

func (w *work) whole(part int) error {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	defer w.more.Broadcast()
	return w.journal.whole(part)
}

// bringPart brings a part. What breaks off is gone on with where it broke off.
func (w *work) bringPart(ctx context.Context, part int, buf []byte) error {
	offset, left := int64(part)*w.journal.head.PartSize, w.journal.head.length(part)
	for p := (patience{}); ; {
		n, err := w.piece(ctx, offset, left, buf)
		if n > 0 {
			p.tries = 0
		}
		offset, left = offset+n, left-n
		if left == 0 {
			return nil
		}
		if !passing(err) {
			return err
		}
		if err := p.wait(ctx, err); err != nil {
			return err
		}
	}
}

// piece brings what one answer gives of a part.
func (w *work) piece(ctx context.Context, offset, length int64, buf []byte) (n int64, err error) {
	a, err := w.ask(ctx, offset, length, w.journal.head.Size)
	if err != nil {
		return 0, err
	}
	defer func() { _ = a.Body.Close() }()
	for n < length {
		k, err := a.Body.Read(buf[:min(int64(len(buf)), length-n)])
		if k > 0 {
			if _, bad := w.file.WriteAt(buf[:k], offset+n); bad != nil {
				return n, fmt.Errorf("%w: %w", errDisk, bad)
			}
			n += int64(k)
			w.here.done.Add(int64(k))
			if bad := w.slow(ctx, k); bad != nil {
				return n, bad
			}
		}
		if errors.Is(err, io.EOF) {
			return n, io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// slow keeps to the bound on bytes per second.
func (t *fetch) slow(ctx context.Context, n int) error {
	for t.Limit != nil && n > 0 {
		k := min(n, max(t.Limit.Burst(), 1))
		if err := t.Limit.WaitN(ctx, k); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// hash follows the parts with the hash, and returns it when all are in it.
func (w *work) hash(ctx context.Context) (string, error) {
	h := newHasher(w.file, w.journal)
	for h.parts < len(w.journal.done) {
		if !w.await(ctx, h.parts) {
			return "", context.Cause(ctx)
		}
		state, err := h.next()
		if err == nil {
			err = w.hashed(state)
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", errDisk, err)
		}
	}
	return h.hex(), nil
}

// await waits until a part is whole; false if the work ends before.
func (w *work) await(ctx context.Context, part int) bool {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	for !w.journal.done[part] && ctx.Err() == nil {
		w.more.Wait()
	}
	return w.journal.done[part]
}

func (w *work) hashed(h hashed) error {
	w.more.L.Lock()
	defer w.more.L.Unlock()
	return w.journal.hashedTo(h)
}
