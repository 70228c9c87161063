package redisstore

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// breakAfter is how many calls in a row must fail before a part of the store is not asked any more.
	breakAfter = 3
	// probeInterval is how often such a part is probed.
	probeInterval = 500 * time.Millisecond
)

// breaker keeps calls from one part of the store that does not answer, so that nobody waits for it in vain. It opens after
// a few failed calls in a row; while it is open, a probe now and then finds out whether the part is back, and any answer
// closes it. It also knows for how long the part did not answer.
type breaker struct {
	probeKey string // a key of the part that there never is
	// notice is by how much an outage may be older than the first call that it failed.
	notice time.Duration
	spared time.Duration // for how long after an outage its leeway lasts
	made   time.Time     // the origin of answeredAt

	isOpen     atomic.Bool
	isFailing  atomic.Bool  // the last call has failed
	answeredAt atomic.Int64 // when the last answer came, in ns since made

	mu        sync.Mutex
	faults    int           // in a row
	since     time.Time     // when the first of them was made
	from      time.Time     // when the outage began that they belong to
	last      error         // of the last of them
	awayFor   time.Duration // how long the last outage was, or a longer one shortly before it
	backAt    time.Time     // when the last one ended; zero: there was none
	nextProbe time.Time     // while it is open
	isProbed  bool
}

// verdict is what the outcome of a call says about the store.
type verdict int

const (
	unclear  verdict = iota // nothing: the caller left
	answered                // it is there, whatever it said
	failed                  // it is away, or cannot serve
)

// note takes in what became of a call that was begun at the moment begun. It reports whether the breaker has opened, or closed.
func (b *breaker) note(v verdict, err error, begun, now time.Time) (hasChanged bool) {
	switch v {
	case answered:
		b.answeredAt.Store(int64(now.Sub(b.made)))
		return b.isFailing.Load() && b.recovered(now)
	case failed:
		return b.failed(err, begun, now)
	default:
		return false
	}
}

func (b *breaker) failed(err error, begun, now time.Time) (hasOpened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if int64(begun.Sub(b.made)) < b.answeredAt.Load() {
		return false // the part has answered since: what this call ran into is over
	}
	if b.faults == 0 {
		b.since, b.from = begun, begun.Add(-b.notice)
		b.isFailing.Store(true)
	}
	b.faults++
	b.last = err
	if b.faults < breakAfter || b.isOpen.Load() {
		return false
	}
	if b.isSpared(b.since) { // nobody has had the time to catch up between the two: they are one
		b.from = b.backAt.Add(-b.awayFor)
	}
	b.nextProbe = now.Add(probeInterval)
	b.isOpen.Store(true)
	return true
}

func (b *breaker) recovered(now time.Time) (hasClosed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.faults == 0 {
		return false
	}
	b.faults, b.awayFor, b.backAt = 0, b.away(now), now
	b.isFailing.Store(false)
	return b.isOpen.Swap(false)
}

// wantsProbe reports whether the caller is to probe the part. Whoever does calls probed afterwards.
func (b *breaker) wantsProbe(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isOpen.Load() || b.isProbed || now.Before(b.nextProbe) {
		return false
	}
	b.isProbed, b.nextProbe = true, now.Add(probeInterval)
	return true
}

func (b *breaker) probed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.isProbed = false
}

// failingSince is when the first of the calls was made that have failed in a row.
func (b *breaker) failingSince() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since
}

// leeway returns for how long the part has been away, or was when its last outage ended less than spared ago; 0 otherwise.
func (b *breaker) leeway(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.away(now)
}

// away is leeway for callers that hold b.mu. A fault soon after an outage, as the Redis client answers from memory for up to a second after a
// server is back, must not make anybody forget how long that was.
func (b *breaker) away(now time.Time) (most time.Duration) {
	if b.isSpared(now) || b.faults > 0 && b.isSpared(b.since) {
		most = b.awayFor
	}
	if b.faults > 0 {
		most = max(most, now.Sub(b.from))
	}
	return most
}

// isSpared reports whether the last outage had ended not long before a moment. The caller holds b.mu.
func (b *breaker) isSpared(at time.Time) bool {
	return !b.backAt.IsZero() && at.Sub(b.backAt) <= b.spared
}

// refusal is what a caller is told while the breaker is open.
func (b *breaker) refusal(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := strings.TrimPrefix(fmt.Sprint(b.last), cluster.ErrStoreUnavailable.Error()+": ")
	return fmt.Errorf("%w: every call has failed for %s, it is probed every %s; last: %s",
		cluster.ErrNotSent, now.Sub(b.since).Round(time.Millisecond), probeInterval, last)
}
