package auth

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// retryFetch is the least time between two fetches, and the pause after the first that failed.
	retryFetch = 5 * time.Second
	// maxRetryFetch is the longest pause after fetches that failed.
	maxRetryFetch = time.Minute
)

// keyCache holds the issuer's keys. One goroutine, run, fetches them: when they are due, and when a request asks for it.
// Requests read the last good ones without a lock.
type keyCache struct {
	fetch    func(context.Context) (*keySet, error)
	refresh  time.Duration
	stale    time.Duration
	patience time.Duration // how long a request waits for a fetch
	log      *slog.Logger

	current atomic.Pointer[keySet] // the last good ones; nil: none yet
	wanted  chan struct{}          // holds one wish at most

	mu       sync.Mutex
	ended    time.Time     // when the last fetch did; zero: there was none
	failure  error         // of the last fetch that has ended; nil: it worked
	fetching bool          // it has not ended yet
	round    chan struct{} // closed at the end of the fetch that goes on, or else of the next one; and at the end of run
}

func newKeyCache(cfg Config) *keyCache {
	return &keyCache{
		fetch:    newKeySource(cfg).fetch,
		refresh:  cfg.JWKSRefresh,
		stale:    cfg.JWKSStale,
		patience: cfg.JWKSTimeout + time.Second,
		log:      cfg.Logger,
		wanted:   make(chan struct{}, 1),
		round:    make(chan struct{}),
	}
}

// usable returns the keys, or nil when there are none that may be used at the moment now.
func (c *keyCache) usable(now time.Time) *keySet {
	set := c.current.Load()
	if set == nil || now.Sub(set.fetchedAt) > c.stale {
		return nil
	}
	return set
}

// state tells when the last good keys were fetched, zero if never, and why the last attempt failed, nil if it did not.
func (c *keyCache) state() (fetchedAt time.Time, failure error) {
	if set := c.current.Load(); set != nil {
		fetchedAt = set.fetchedAt
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return fetchedAt, c.failure
}

// refetch has the keys fetched, unless one ended a moment ago, and waits for the end of it. A fetch that goes on already will
// do.
func (c *keyCache) refetch(ctx context.Context) {
	c.mu.Lock()
	if !c.fetching && c.resting(time.Now()) > 0 {
		c.mu.Unlock()
		return
	}
	round := c.round
	if !c.fetching {
		select {
		case c.wanted <- struct{}{}:
		default: // somebody else wished for it
		}
	}
	c.mu.Unlock()

	patience := time.NewTimer(c.patience)
	defer patience.Stop()
	select {
	case <-round:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// untilRefetch returns how long keys may not be fetched again for a token.
func (c *keyCache) untilRefetch(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resting(now)
}

// resting is untilRefetch for callers that hold c.mu.
func (c *keyCache) resting(now time.Time) time.Duration {
	if c.ended.IsZero() {
		return 0
	}
	return max(c.ended.Add(retryFetch).Sub(now), 0)
}

// run fetches keys until ctx is done.
func (c *keyCache) run(ctx context.Context) {
	defer c.stop()
	failures := 0
	for {
		c.begin()
		set, err := c.fetchUnlessItPanics(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			c.take(set, failures)
			failures = 0
		} else {
			failures++
			c.log.Warn("keys that verify tokens could not be fetched", "error", err, "failures", failures, "usable", c.usable(time.Now()) != nil)
		}
		c.end(err)
		if !c.pause(ctx, c.delay(failures)) {
			return
		}
	}
}

// fetchUnlessItPanics fetches keys. What comes from outside goes through parsers that are not ours.
func (c *keyCache) fetchUnlessItPanics(ctx context.Context) (set *keySet, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			c.log.Error("fetching keys that verify tokens panicked", "panic", fault, "stack", string(debug.Stack()))
			err = errors.New("the answer made the parser panic; the log says more")
		}
	}()
	return c.fetch(ctx)
}

// take makes a set the current one.
func (c *keyCache) take(set *keySet, failures int) {
	before := c.current.Swap(set)
	if before == nil || before.fingerprint != set.fingerprint || failures > 0 {
		c.log.Info("keys that verify tokens fetched", "keys", len(set.keys), "changed", before == nil || before.fingerprint != set.fingerprint)
	}
}

// delay is how long after the end of a fetch the next one is due. Replicas that start together soon do not fetch together any more.
func (c *keyCache) delay(failures int) time.Duration {
	due := c.refresh
	if failures > 0 {
		// Doubling, up to the bound; a shift by more than 4 would be past it anyway.
		due = min(retryFetch<<min(failures-1, 4), maxRetryFetch, c.refresh)
	}
	return max(due-rand.N(due/10), retryFetch) //nolint:gosec // jitter is no secret
}

// pause waits until the next fetch is due or wanted. It returns false when ctx is done.
func (c *keyCache) pause(ctx context.Context, due time.Duration) bool {
	timer := time.NewTimer(due)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-c.wanted:
	}
	return true
}

// begin notes that a fetch begins, which is what was wished for.
func (c *keyCache) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetching = true
	select {
	case <-c.wanted:
	default:
	}
}

// end tells those who wait that a fetch has ended.
func (c *keyCache) end(failure error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetching, c.ended, c.failure = false, time.Now(), failure
	close(c.round)
	c.round = make(chan struct{})
}

// stop tells those who wait that nothing is to be waited for any more.
func (c *keyCache) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.round)
}
