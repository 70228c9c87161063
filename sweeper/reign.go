package sweeper

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-redsync/redsync/v4"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// acquire takes the lock and an epoch. When it cannot have both it has neither.
func (e *Election) acquire(ctx context.Context) (*Term, error) {
	// Not to be broken off: a lock that was taken by a call nobody waits for would keep everyone from leading for a TTL.
	ctx = context.WithoutCancel(ctx)
	begun := time.Now()
	t := &Term{election: e, since: begun, trusted: e.trustFrom(begun)}
	t.mutex = e.locks.NewMutex(e.cfg.Store.LeaderKey(),
		redsync.WithExpiry(e.cfg.TTL),
		redsync.WithTries(1),
		redsync.WithTimeoutFactor(0.2), // as callTimeout
		redsync.WithGenValueFunc(func() (string, error) { return e.cfg.Incarnation + " " + rand.Text(), nil }),
	)
	if err := t.mutex.TryLockContext(ctx); err != nil {
		return nil, fmt.Errorf("taking the leader's lock: %w", err)
	}
	t.value = t.mutex.Value()
	if err := t.take(ctx, 0); err != nil {
		e.standDown(t.resign(ctx))
		return nil, fmt.Errorf("taking an epoch: %w", err)
	}
	return t, nil
}

// reign runs a term from its beginning to its end, and gives the lock back. Nothing of the term is left when it returns.
func (e *Election) reign(ctx context.Context, t *Term, lead func(context.Context, *Term) error) {
	if ctx.Err() != nil {
		t.resign(ctx)
		return
	}
	leading := t.begin(ctx)
	// reign starts the renewing goroutine. The end of the term stops it, and reign waits for that before it resigns,
	// because until then the mutex is the goroutine's.
	renewing := make(chan struct{})
	go func() {
		defer close(renewing)
		err := guard("renewal", e.cfg.Logger, e.cfg.Observer, func() error { return t.renew(leading) })
		if err != nil {
			t.end(ReasonPanicked, err)
		}
	}()
	err := guard("lead", e.cfg.Logger, e.cfg.Observer, func() error { return lead(leading, t) })
	_, hasPanicked := errors.AsType[*PanicError](err)
	switch {
	case hasPanicked:
		t.end(ReasonPanicked, err)
	case ctx.Err() != nil:
		t.end(ReasonStopped, err)
	default:
		t.end(ReasonFailed, cmp.Or(err, errLeadReturned))
	}
	<-renewing
	isFree := t.reason == ReasonLost || t.resign(ctx) // what is lost is not ours to give back
	if hasPanicked || (t.reason != ReasonLost && t.reason != ReasonStopped) {
		e.standDown(isFree)
	}
}

// standDown keeps a replica that could not lead from standing for one TTL, so that another can, who may be able to. Where the
// lock still has to expire, the TTL is followed by a tick, or the same replica might be the first again and again.
func (e *Election) standDown(isFree bool) {
	e.notBefore = time.Now().Add(e.cfg.TTL)
	if !isFree {
		e.notBefore = e.notBefore.Add(e.cfg.TTL / 5)
	}
}

// begin begins the reign, and returns the context of what is done in it.
func (t *Term) begin(ctx context.Context) context.Context {
	e := t.election
	ctx, t.cancel = context.WithCancelCause(ctx)
	t.mu.Lock()
	// The timer's goroutine depends on nobody: it fires while an extension hangs. The end of the term stops it.
	t.watch = time.AfterFunc(time.Until(t.trusted), t.watchTrust)
	t.mu.Unlock()

	e.mu.Lock()
	e.term, e.leader, e.seenAt = t, e.cfg.Incarnation, t.since
	e.mu.Unlock()
	e.cfg.Logger.Info("this replica leads", "epoch", t.Epoch())
	e.tell(true, ReasonElected)
	return ctx
}

// tell tells the observer. Who watches must not be able to end a term, or the process: the timer of the trust window calls it,
// too, on a goroutine of its own.
func (e *Election) tell(isLeader bool, reason Reason) {
	_ = guard("observer", e.cfg.Logger, e.cfg.Observer, func() error { // logged and counted
		e.cfg.Observer.LeaderChanged(isLeader, reason)
		return nil
	})
}

// end ends the reign; the first reason counts. When it returns, the leader's context is cancelled and everyone is told.
func (t *Term) end(reason Reason, err error) {
	t.ending.Do(func() {
		e := t.election
		cause := ErrTermOver
		level := e.cfg.InOutage.Level(err, time.Now())
		switch reason {
		case ReasonExpired, ReasonLost:
			cause = err
		case ReasonStopped:
			level = slog.LevelInfo
		}
		t.mu.Lock()
		t.cause, t.reason = cause, reason
		t.watch.Stop()
		t.mu.Unlock()
		t.cancel(cause)

		e.mu.Lock()
		e.term, e.leader = nil, ""
		e.mu.Unlock()
		attrs := []slog.Attr{
			slog.String("reason", string(reason)), slog.Int64("epoch", t.Epoch()),
			slog.String("led_for", time.Since(t.since).Round(time.Millisecond).String()), // a Duration is nanoseconds in JSON
		}
		if err != nil {
			attrs = append(attrs, slog.Any("error", err))
		}
		e.cfg.Logger.LogAttrs(context.Background(), level, "this replica leads no more", attrs...)
		e.tell(false, reason)
	})
}

// watchTrust ends the term when its trust window has.
func (t *Term) watchTrust() {
	t.mu.Lock()
	left, fault := time.Until(t.trusted), t.fault
	if left > 0 { // an extension came between
		t.watch.Reset(left)
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	err := ErrTrustEnded
	if fault != nil {
		err = fmt.Errorf("%w: %w", ErrTrustEnded, storeFault(fault))
	}
	t.end(ReasonExpired, err)
}

// storeFault marks an error of a call for the lock as what it is to those who know no lock, unless the store has said how it is about it.
func storeFault(err error) error {
	if errors.Is(err, redsync.ErrExtendFailed) || errors.Is(err, cluster.ErrStoreUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", cluster.ErrStoreUnavailable, err)
}

// renew extends the lock three times a TTL, and more often after a failure, until the term ends.
func (t *Term) renew(ctx context.Context) error {
	ttl := t.election.cfg.TTL
	next := t.since.Add(ttl / 3)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		}
		begun := time.Now()
		err := t.extend(ctx)
		t.election.cfg.Observer.Renewed(time.Since(begun), err)
		if _, isTaken := errors.AsType[*redsync.ErrTaken](err); isTaken {
			t.end(ReasonLost, ErrLockLost)
			return nil
		}
		t.extended(begun, err)
		next = begun.Add(ttl / 3)
		if err != nil {
			next = time.Now().Add(ttl / 20)
		}
	}
}

// extend extends the lock once. It takes no longer than the trust lasts.
func (t *Term) extend(ctx context.Context) error {
	ctx, stop := context.WithDeadline(ctx, t.TrustedUntil())
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, t.election.callTimeout())
	defer cancel()
	isExtended, err := t.mutex.ExtendContext(ctx)
	if err == nil && !isExtended {
		return redsync.ErrExtendFailed
	}
	return err
}

// extended takes in the outcome of an extension that was begun at the given moment. Trust that has ended does not begin
// anew: the leader has been told, or is just being told.
func (t *Term) extended(begun time.Time, err error) {
	t.mu.Lock()
	t.fault = err
	isTrusted := err == nil && t.cause == nil && time.Now().Before(t.trusted)
	if isTrusted {
		t.trusted = t.election.trustFrom(begun)
		t.watch.Reset(time.Until(t.trusted))
	}
	t.mu.Unlock()
	if isTrusted {
		t.election.mu.Lock()
		t.election.seenAt = begun
		t.election.mu.Unlock()
	}
}

// Giving the lock back is tried a few times: else nobody leads until it expires.
const (
	resignTries   = 3
	resignTimeout = 500 * time.Millisecond // of a try
	resignPause   = 50 * time.Millisecond  // between two
)

// resign gives the lock back, if it is still this term's, tells the followers, and reports whether the lock is this term's
// no more. It is not broken off by the end of ctx, which is often why the leader resigns.
func (t *Term) resign(ctx context.Context) (isFree bool) {
	ctx = context.WithoutCancel(ctx)
	var err error
	begun := time.Now()
	for try := range resignTries {
		if try > 0 {
			<-time.After(resignPause)
		}
		if err = t.unlock(ctx); err == nil {
			t.announce(ctx)
			return true
		}
		if _, isTaken := errors.AsType[*redsync.ErrTaken](err); isTaken {
			return true // expired, and another replica's meanwhile
		}
	}
	cfg := t.election.cfg
	cfg.Logger.Log(ctx, cfg.InOutage.Level(storeFault(err), begun),
		"the leader's lock could not be given back; nobody leads until it expires", "error", err, "ttl", cfg.TTL.String())
	return false
}

func (t *Term) unlock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(resignTimeout, t.election.callTimeout()))
	defer cancel()
	_, err := t.mutex.UnlockContext(ctx)
	if errors.Is(err, redsync.ErrLockAlreadyExpired) {
		return nil // or the reply of the try before was lost
	}
	return err
}

// announce wakes the followers. They would notice by themselves, at their ticks.
func (t *Term) announce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(resignTimeout, t.election.callTimeout()))
	defer cancel()
	store := t.election.cfg.Store
	if err := store.Client().Publish(ctx, store.ResignedChannel(), t.election.cfg.Incarnation).Err(); err != nil {
		t.election.cfg.Logger.Debug("telling the followers of a resignation", "error", err)
	}
}
