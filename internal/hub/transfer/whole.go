package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// whole brings a file from a server that gives no parts: all of it, from its beginning. What breaks off is begun anew, as nothing can be gone on with.
func (t *fetch) whole(ctx context.Context, file *os.File, a answer) (Result, error) {
	if a.size >= 0 {
		if err := t.room(a.size); err != nil {
			return Result{}, errors.Join(err, a.Body.Close())
		}
	}
	for p := (patience{}); ; {
		result, err := t.stream(ctx, file, a)
		if err == nil || !passing(err) {
			return result, err
		}
		if err := p.wait(ctx, err); err != nil {
			return result, err
		}
		if a, err = t.look(ctx); err != nil {
			return result, err
		}
	}
}

func (t *fetch) stream(ctx context.Context, file *os.File, a answer) (Result, error) {
	defer func() { _ = a.Body.Close() }()
	if a.ranges {
		return Result{}, ErrChanged // it gives parts now: begin anew with them
	}
	if err := file.Truncate(0); err != nil {
		return Result{}, fmt.Errorf("%w: %w", errDisk, err)
	}
	here := startProgress(0, a.size, t.Progress)
	defer here.stop()
	sum, buf, n := sha256.New(), make([]byte, bufferSize), int64(0)
	for {
		k, err := a.Body.Read(buf)
		if k > 0 {
			if _, bad := file.WriteAt(buf[:k], n); bad != nil {
				return Result{}, fmt.Errorf("%w: %w", errDisk, bad)
			}
			sum.Write(buf[:k])
			n += int64(k)
			here.done.Store(n)
			if bad := t.slow(ctx, k); bad != nil {
				return Result{}, bad
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Result{}, err
		}
	}
	if want := max(a.size, t.want.Size); want >= 0 && n != want {
		return Result{}, io.ErrUnexpectedEOF
	}
	here.total.Store(n)
	return Result{n, hex.EncodeToString(sum.Sum(nil))}, nil
}
