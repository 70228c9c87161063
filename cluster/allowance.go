package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// RateStore limits what principals may do without a session.
type RateStore interface {
	// GrantRequests takes requests out of what a principal may make, over all replicas: Config.StatelessRatePerPrincipal a second,
	// as many at once. It grants one at least and want at most, leaving most of the rest to other replicas. Errors: a LimitError
	// that is ErrRateLimited.
	GrantRequests(ctx context.Context, p Principal, want int) (int, error)
}

// allowances are what this replica has been granted for principals.
type allowances struct {
	mu  sync.Mutex
	all map[Principal]*allowance // those of the last allowanceKept only
}

// allowanceKept is for how long what is known of a principal is kept without a request. All of it has passed by then: a rate that
// was used up is there again after a second.
const allowanceKept = 10 * time.Second

// allowance is what this replica has been granted for one principal, and has not used.
type allowance struct {
	mu           sync.Mutex
	left         int
	until        time.Time // what is left may be used before this
	refusedUntil time.Time // the store has said that there is nothing before this
	second       time.Time // when used began to be counted
	used         int       // since: what the next grant is sized by
	touched      time.Time
	alone        alone // the limit while the store is away
}

// Admit counts one request that a principal makes without a session, over all replicas. Most requests are admitted from what was
// granted before; a principal that makes few asks the store for each. Without a principal nothing is counted, and no store asked. While
// the store is away each replica applies the rate alone.
//
// In any window w, at most rate x (1s + w + Config.Lease) are admitted. Errors: a [LimitError] that is [ErrRateLimited]; the context's.
func (m *Manager) Admit(ctx context.Context, p Principal) error {
	if m.cfg.StatelessRatePerPrincipal == 0 || p == "" {
		return nil
	}
	a := m.allowances.of(p)
	isServed, want, err := a.serve(m.cfg, time.Now())
	if isServed || err != nil {
		return err
	}
	bounded, cancel := m.storeContext(ctx)
	defer cancel()
	sent := time.Now()
	granted, err := m.store.GrantRequests(bounded, p, want)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrStoreUnavailable):
		return a.serveAlone(m.cfg, time.Now())
	case err != nil:
		a.refused(m.cfg, err, sent)
		return fmt.Errorf("admitting a request: %w", err)
	}
	a.granted(m.cfg, granted-1, sent)
	return nil
}

func (s *allowances) of(p Principal) *allowance {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.all[p]
	if a == nil {
		a = &allowance{touched: time.Now()}
		s.all[p] = a
	}
	return a
}

// forget drops what is known of principals that have made no requests for a time.
func (s *allowances) forget(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, a := range s.all {
		if a.isIdle(now) {
			delete(s.all, p)
		}
	}
}

func (a *allowance) isIdle(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Sub(a.touched) >= allowanceKept
}

// serve admits one request from what was granted, refuses it, or says how many to ask for: as many as were used in the last second.
func (a *allowance) serve(cfg Config, now time.Time) (isServed bool, want int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.touched = now
	if now.Sub(a.second) >= time.Second {
		a.second, a.used = now, a.used/2 // the last second counts half: who pauses hoards nothing
	}
	a.used++
	switch {
	case a.left > 0 && now.Before(a.until):
		a.left--
		return true, 0, nil
	case cfg.Lease > 0 && now.Before(a.refusedUntil):
		return false, 0, statelessLimit(a.refusedUntil.Sub(now))
	case cfg.Lease == 0:
		return false, 1, nil
	}
	return false, min(a.used, cfg.StatelessRatePerPrincipal), nil
}

// serveAlone applies the rate at this replica alone.
func (a *allowance) serveAlone(cfg Config, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	rate := cfg.StatelessRatePerPrincipal
	if wait := a.alone.take(Config{RequestRate: rate, RequestBurst: rate}, 1, rate, now, now); wait > 0 {
		return statelessLimit(wait)
	}
	return nil
}

// refused remembers until when the store refuses.
func (a *allowance) refused(cfg Config, refusal error, now time.Time) {
	limit, ok := errors.AsType[*LimitError](refusal)
	if !ok || cfg.Lease == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refusedUntil = now.Add(limit.RetryAfter)
}

// granted takes in what the store has granted beyond the request in hand.
func (a *allowance) granted(cfg Config, more int, sent time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.alone = alone{}
	if !sent.Before(a.until) {
		a.left = 0
	}
	if a.left == 0 {
		a.until = sent.Add(cfg.Lease)
	}
	a.left += more
}

func statelessLimit(wait time.Duration) error {
	return fmt.Errorf("admitting a request: %w", &LimitError{
		Limit: "stateless_rate_per_principal", RetryAfter: max(wait, time.Millisecond), Err: ErrRateLimited,
	})
}
