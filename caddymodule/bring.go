package caddymodule

import (
	"context"
	"errors"
	"time"

	"assistant/internal/openai"
)

// defaultDownloadWait is as long as a request waits for room (DESIGN §5, max_wait).
const defaultDownloadWait = time.Minute

var errDownloadWait = errors.New("the time to wait for a download is over")

// bring waits until the model's files are here, telling the client that it still waits if that was asked for. The download goes on when the
// request has left, or has waited long enough.
func (x *exchange) bring() error {
	wait := defaultDownloadWait
	if x.h.DownloadWait != nil {
		wait = time.Duration(*x.h.DownloadWait)
	}
	ctx, cancel := context.WithTimeoutCause(x.r.Context(), wait, errDownloadWait)
	defer cancel()
	bring := func() error { return x.h.rt.bring(ctx, x.model) }
	var err error
	if every, how := x.telling(); every > 0 {
		err = tellUntil(x, every, how, bring)
	} else {
		err = bring()
	}
	if err != nil {
		return err
	}
	return x.findAgain()
}

// findAgain takes the model as the catalog has it now that its files are here.
func (x *exchange) findAgain() error {
	c := x.h.rt.catalog.Load()
	m, ok := c.Resolve(x.model.Name, x.model.Kind)
	if !ok || m.Key != x.model.Key || toBeBrought(m) {
		return openai.ModelNotFound(x.model.Name) // its file was removed, or changed, meanwhile
	}
	x.model = m
	return x.sees()
}
