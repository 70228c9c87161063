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

// allowance is what this replica has been granted for one principal, and has not used. One call at a time asks the store for all who
// wait: what it grants is theirs before anybody asks for more, so nothing lies here unused while one of them is refused.
type allowance struct {
	mu           sync.Mutex
	left         int
	until        time.Time  // what is left may be used before this
	refusedUntil time.Time  // the store has said that there is nothing before this
	asking       *grantCall // nil: nobody asks
	waiting      int        // requests that are not decided on; never one that has its place, or more would be asked for than are used
	second       time.Time  // when used began to be counted
	used         int        // since
	before       int        // in the second before that: how much more than for those who wait is asked for
	touched      time.Time
	alone        alone // the limit while the store is away
}

// grantCall is one question to the store. Its error is that of all who wait for the answer.
type grantCall struct {
	done chan struct{} // closed at the end
	err  error         // to be read after that
}

// Admit counts one request that a principal makes without a session, over all replicas. Most requests are admitted from what was
// granted before; a principal that makes few asks the store for each. Without a principal nothing is counted, and no store asked. While
// the store is away each replica applies the rate alone.
//
// In any window w, at most rate x (1s + w + Config.Lease) are admitted. Of a principal that made none in the two seconds before, as many
// as Config.StatelessRatePerPrincipal are, however many come at once, at whichever replicas. Errors: a [LimitError] that is
// [ErrRateLimited]; the context's.
func (m *Manager) Admit(ctx context.Context, p Principal) error {
	if m.cfg.StatelessRatePerPrincipal == 0 || p == "" {
		return nil
	}
	a := m.allowances.of(p)
	a.enter(time.Now())
	for {
		isServed, others, err := a.serve(m.cfg, time.Now())
		if isServed || err != nil {
			return err
		}
		if others == nil {
			return m.askFor(ctx, a, p)
		}
		select {
		case <-others.done:
		case <-ctx.Done():
			a.leave()
			return ctx.Err()
		}
		if others.err != nil {
			a.leave()
			return a.unanswered(m.cfg, others.err)
		}
	}
}

// askFor asks the store for the caller, and with it for all who wait.
func (m *Manager) askFor(caller context.Context, a *allowance, p Principal) error {
	ctx, cancel := m.storeContext(caller)
	defer cancel()
	sent := time.Now()
	granted, err := m.store.GrantRequests(ctx, p, a.wanted(m.cfg))
	switch gone := caller.Err(); {
	case gone != nil && err != nil:
		a.abandoned(m.cfg)
		return gone
	case gone != nil:
		a.answered(m.cfg, granted, nil, sent)
		return gone
	case err != nil:
		a.answered(m.cfg, 0, err, sent)
		return a.unanswered(m.cfg, err)
	}
	a.answered(m.cfg, granted-1, nil, sent)
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

// enter counts a request that comes. serve, answered and abandoned count out those that they decide on, leave the others.
func (a *allowance) enter(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.touched = now
	if since := now.Sub(a.second); since >= time.Second {
		a.before = a.used
		if since >= 2*time.Second {
			a.before = 0 // who pauses hoards nothing
		}
		a.second, a.used = now, 0
	}
	a.used++
	a.waiting++
}

func (a *allowance) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting--
}

// serve admits one request from what was granted, refuses it, or has it wait for others, who ask the store. Without any the caller is to
// ask. Strict mode has every request ask for itself.
func (a *allowance) serve(cfg Config, now time.Time) (isServed bool, others *grantCall, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case cfg.Lease == 0:
		return false, nil, nil
	case a.left > 0 && now.Before(a.until):
		a.left--
		a.waiting--
		return true, nil, nil
	case now.Before(a.refusedUntil):
		a.waiting--
		return false, nil, statelessLimit(a.refusedUntil.Sub(now))
	case a.asking != nil:
		return false, a.asking, nil
	}
	a.asking = &grantCall{done: make(chan struct{})}
	return false, nil, nil
}

// wanted is how many to ask for: one for each who waits, and as many as were used in a second.
func (a *allowance) wanted(cfg Config) int {
	if cfg.Lease == 0 {
		return 1
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return min(a.waiting+a.before, cfg.StatelessRatePerPrincipal)
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

// answered takes in what the store has said: how much there is beyond the asker's own request, or that there is nothing.
func (a *allowance) answered(cfg Config, more int, err error, sent time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting-- // the asker
	limit, isLimit := errors.AsType[*LimitError](err)
	switch {
	case cfg.Lease == 0:
		return
	case isLimit:
		a.refusedUntil = sent.Add(limit.RetryAfter)
	case err == nil:
		a.alone = alone{}
		a.left, a.until = more, sent.Add(cfg.Lease)
	}
	a.doneAsking(err)
}

// abandoned is called when the asker has left before the store has said anything. That says nothing to the others, of whom one asks, nor
// about the store: what is counted while it is away goes on.
func (a *allowance) abandoned(cfg Config) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting-- // the asker
	if cfg.Lease != 0 {
		a.doneAsking(nil)
	}
}

// doneAsking lets those go on who wait for the answer. The caller holds a.mu.
func (a *allowance) doneAsking(err error) {
	a.asking.err = err
	close(a.asking.done)
	a.asking = nil
}

// unanswered decides on a request that the store has granted nothing for.
func (a *allowance) unanswered(cfg Config, err error) error {
	if errors.Is(err, ErrStoreUnavailable) {
		return a.serveAlone(cfg, time.Now())
	}
	return fmt.Errorf("admitting a request: %w", err)
}

func statelessLimit(wait time.Duration) error {
	return fmt.Errorf("admitting a request: %w", &LimitError{
		Limit: "stateless_rate_per_principal", RetryAfter: max(wait, time.Millisecond), Err: ErrRateLimited,
	})
}
