package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// probe knows whether the store can be reached. One goroutine asks (run), everyone may look (state).
type probe struct {
	store   Pinger
	timeout time.Duration
	inGrace func() bool // whether a replica that has reached the store is ready without it; nil: it is not
	log     *slog.Logger

	mu      sync.Mutex
	current storeState
	reached bool // at least once
}

// storeState is what the last probe found.
type storeState struct {
	err   error     // nil: the store answered
	since time.Time // of the first probe in a row with this result; zero before the first
}

// errNotProbed is the state before the first probe.
var errNotProbed = errors.New("not probed yet")

// run probes at once and then every [ProbeInterval], until ctx ends.
func (p *probe) run(ctx context.Context) {
	ticker := time.NewTicker(ProbeInterval)
	defer ticker.Stop()
	for {
		p.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// once asks the store and remembers the answer. Until the store is reached for the first time, a change of state is logged.
func (p *probe) once(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	err := p.store.Ping(bounded)
	switch {
	case ctx.Err() != nil:
		return // the replica stops: what Ping says is about us, not about the store
	case err != nil && bounded.Err() != nil && errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer within %v", p.timeout)
	}
	now := time.Now()

	p.mu.Lock()
	before := p.current
	first, wasReached := before.since.IsZero(), p.reached
	p.reached = p.reached || err == nil
	p.current = storeState{err: err, since: before.since}
	changed := first || (before.err == nil) != (err == nil)
	if changed {
		p.current.since = now
	}
	p.mu.Unlock()

	switch {
	case !changed || wasReached:
	case err != nil:
		p.log.ErrorContext(ctx, "the store cannot be reached: not ready, and trying again", "error", err, "every", ProbeInterval.String())
	case first:
		p.log.InfoContext(ctx, "the store is reached")
	default:
		p.log.InfoContext(ctx, "the store is reached", "after", now.Sub(before.since).Round(time.Millisecond).String())
	}
}

func (p *probe) state() storeState {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current.since.IsZero() {
		return storeState{err: errNotProbed}
	}
	return p.current
}

func (p *probe) up() bool { return p.state().err == nil }

// ready reports whether the replica can serve as far as the store is concerned, and what there is to say.
func (p *probe) ready() check {
	state := p.state()
	var c check
	if !state.since.IsZero() {
		since := state.since.UTC().Truncate(time.Millisecond)
		c.Since = &since
	}
	p.mu.Lock()
	wasReached := p.reached
	p.mu.Unlock()
	switch {
	case state.err == nil:
		c.OK = true
	case wasReached:
		c.OK = p.inGrace != nil && p.inGrace()
		c.Error = fmt.Sprintf("away since %s: %v", c.Since.Format(time.RFC3339), state.err)
	default:
		c.Error = state.err.Error()
	}
	return c
}
