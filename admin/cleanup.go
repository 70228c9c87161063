package admin

import (
	"context"
	"sync"
	"time"
)

// lagIntervals is after how many sweep intervals what is due counts as left behind.
const lagIntervals = 3

// Leadership is what a replica knows of who cleans up.
type Leadership struct {
	IsLeader     bool
	Leader       string // the incarnation last seen leading, empty for none
	Epoch        int64
	Since        time.Time // of this replica's own term, else zero
	TrustedUntil time.Time // as Since
}

// leaderCheck is what /readyz tells of the cleanup. It says nothing about readiness.
type leaderCheck struct {
	IsLeader     bool       `json:"is_leader"`
	Leader       string     `json:"leader,omitempty"`
	Epoch        int64      `json:"epoch,omitempty"`
	Since        *time.Time `json:"since,omitempty"`
	TrustedUntil *time.Time `json:"trusted_until,omitempty"`
}

func newLeaderCheck(l Leadership) *leaderCheck {
	c := &leaderCheck{IsLeader: l.IsLeader, Leader: l.Leader, Epoch: l.Epoch}
	if l.IsLeader {
		since, until := l.Since.UTC().Truncate(time.Millisecond), l.TrustedUntil.UTC().Truncate(time.Millisecond)
		c.Since, c.TrustedUntil = &since, &until
	}
	return c
}

// watchdog knows how far behind the cleanup is. One goroutine asks (run), everyone may look (state).
type watchdog struct {
	sessions Sessions
	timeout  time.Duration
	interval time.Duration // between sweeps

	mu     sync.Mutex
	lag    time.Duration
	behind bool
}

// run asks once an interval, until ctx ends.
func (w *watchdog) run(ctx context.Context) {
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	for {
		w.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// once asks the store. While it is away what was known stays: nobody can clean up then.
func (w *watchdog) once(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	stats, err := w.sessions.Stats(ctx)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lag, w.behind = stats.Lag, stats.Lag > lagIntervals*w.interval
}

func (w *watchdog) state() (lag time.Duration, behind bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lag, w.behind
}
