package proxy

import (
	"context"
	"io"
	"sync"
	"time"
)

// Drain prepares for the end: clients that listen are told to come back, which they do to another replica; sessions' own streams are let
// go for others to read; answers that are still coming are stored, for others to resume. Requests are served on. It may be called
// once.
func (p *Proxy) Drain() {
	close(p.draining)
	for _, r := range p.own.list() {
		r.stop(errDraining)
	}
	p.answering.keepAll()
}

// Cut ends every request that is still waiting for its upstream: what had been sent is answered with may_have_run. It may be
// called once, after Drain.
func (p *Proxy) Cut() { p.cutNow(errDraining) }

// Wait waits until nothing runs in the background that a client may come back for, or until ctx is done.
func (p *Proxy) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		p.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isDraining reports whether Drain was called.
func (p *Proxy) isDraining() bool {
	select {
	case <-p.draining:
		return true
	default:
		return false
	}
}

// retry is what a stream's client is told about coming back, in ms, as the stream begins; empty: nothing.
func (p *Proxy) retry() string {
	if p.isDraining() {
		return comeBackAfter
	}
	return ""
}

// keepAlive is the silence after which a stream's client gets a comment; 0: none.
func (p *Proxy) keepAlive() time.Duration {
	if p.cfg.NoKeepAlive {
		return 0
	}
	return p.cfg.KeepAlive
}

// answerStreams are the answers that this replica reads.
type answerStreams struct {
	p   *Proxy
	mu  sync.Mutex
	all map[*answerStream]struct{}
}

// start reads an answer to its end, in the background, and calls ended then.
func (a *answerStreams) start(ctx context.Context, s *answerStream, body io.ReadCloser, ended func()) {
	a.mu.Lock()
	a.all[s] = struct{}{}
	a.mu.Unlock()
	a.p.running.Go(func() {
		defer ended()
		defer func() {
			a.mu.Lock()
			delete(a.all, s)
			a.mu.Unlock()
		}()
		defer a.p.recovered("an answer's stream")
		s.run(ctx, body)
	})
	if a.p.isDraining() {
		s.keep()
	}
}

func (a *answerStreams) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.all)
}

func (a *answerStreams) list() []*answerStream {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*answerStream, 0, len(a.all))
	for s := range a.all {
		all = append(all, s)
	}
	return all
}

// keepAll has all of them stored.
func (a *answerStreams) keepAll() {
	for _, s := range a.list() {
		s.keep()
	}
}
