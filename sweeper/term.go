package sweeper

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-redsync/redsync/v4"
)

// Why a term has ended: the causes of a leader's cancelled context, and the errors of [Term.Raise].
var (
	// ErrTrustEnded means that no extension of the lock succeeded in time: another replica may lead soon.
	ErrTrustEnded = errors.New("the leader's trust window has ended: the lock could not be extended in time")
	// ErrLockLost means that the lock is gone, or another replica's: the store has forgotten it, or someone has deleted it.
	ErrLockLost = errors.New("the leader's lock is lost: the store has forgotten it, or someone else holds it")
	// ErrTermOver means that the term is over because the leader's work is.
	ErrTermOver = errors.New("the leader's term is over")
)

// errLeadReturned is what a leader fails with that stops working for no reason.
var errLeadReturned = errors.New("the leader's work ended before its term did")

// Term is one uninterrupted reign of this replica. It is safe for concurrent use.
type Term struct {
	election *Election
	// mutex is the lock, under a value that no other term has: an older term of this process cannot extend or release
	// it. It must be used by one goroutine at a time: Run's, while a term lasts the renewing one, then Run's again.
	mutex  *redsync.Mutex
	value  string
	since  time.Time
	ending sync.Once
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	epoch   int64
	watch   *time.Timer // fires when the trust window ends
	trusted time.Time   // its end
	fault   error       // of the last extension, nil when it succeeded
	cause   error       // why the term has ended, nil while it lasts
	reason  Reason
}

// Epoch is the number that fences older terms out. [Term.Raise] changes it.
func (t *Term) Epoch() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.epoch
}

// TrustedUntil is the end of the trust window, by this process's clock. Extensions move it.
func (t *Term) TrustedUntil() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trusted
}

// Trusted reports whether the leader is inside its trust window. A process that was stopped for a while and goes on may
// see it turn false a moment before its context is cancelled.
func (t *Term) Trusted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cause == nil && time.Now().Before(t.trusted)
}

// Raise takes a new epoch, greater than the fence that refused this term's: a failover may have made the store forget
// epochs that it had given. Only a leader inside its trust window that the store, too, knows as the leader may do that; to
// any other the refusal means that its time is over. Concurrent calls are harmless: the epoch only grows.
//
// Errors: why the term has ended ([ErrTrustEnded], [ErrLockLost], [ErrTermOver]), before or during the call, and
// cluster.ErrStoreUnavailable. The epoch is then what it was.
func (t *Term) Raise(ctx context.Context, fence int64) error {
	if !t.Trusted() {
		return t.over()
	}
	ctx, cancel := context.WithDeadline(ctx, t.TrustedUntil())
	defer cancel()
	seen, err := t.election.cfg.Store.Leadership(ctx)
	if err != nil {
		return err
	}
	if seen.Holder != t.value {
		// The next extension would find out. Until then two leaders would fence each other out in turns.
		t.end(ReasonLost, ErrLockLost)
		return t.over()
	}
	return t.take(ctx, max(fence, t.Epoch(), seen.Epoch))
}

// take takes an epoch greater than least and than all that this replica knows of.
func (t *Term) take(ctx context.Context, least int64) error {
	ctx, cancel := context.WithTimeout(ctx, t.election.callTimeout())
	defer cancel()
	epoch, err := t.election.cfg.Store.TakeEpoch(ctx, max(least, t.election.knownEpoch()))
	if err != nil {
		return err
	}
	t.election.knows(epoch)
	// The call may have taken long, or the process may have been stopped: then a successor may have an older epoch than
	// this one, which must not be used.
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cause != nil || !time.Now().Before(t.trusted) {
		return cmp.Or(t.cause, ErrTrustEnded)
	}
	t.epoch = max(t.epoch, epoch)
	return nil
}

// over is why a term has ended.
func (t *Term) over() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.cause, ErrTrustEnded)
}

func (e *Election) knownEpoch() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.epoch
}

func (e *Election) knows(epoch int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.epoch = max(e.epoch, epoch)
}

// trustFrom returns the end of the trust that a lock gives which was taken, or extended, by a call begun at the given
// moment. The store cannot have begun to count before that; the margin is for clocks that do not run alike, and for what a
// leader that learns of its end has under way.
func (e *Election) trustFrom(begun time.Time) time.Time { return begun.Add(e.cfg.TTL - e.cfg.TTL/10) }
