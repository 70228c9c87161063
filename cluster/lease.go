package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Use says what a lease is wanted for, and by whom.
type Use struct {
	// Upstream and Principal must be those of the session, or it is not found.
	Upstream  string
	Principal Principal
	// Stream marks an open stream without a request of its own (a client's GET): while nothing passes it keeps the
	// session from idling out, but not from being evicted.
	Stream bool
	// Requests is how many requests are to be admitted at once: more than one for a JSON-RPC batch. Default 1. All are
	// admitted or none, and more than Config.RequestBurst never are.
	Requests int
	// PendingKey tells operators which request it is: its direction and typed JSON-RPC id, at most 64 bytes. A client may use an id
	// again: each request counts as one. Empty: the message expects no answer.
	PendingKey string
	// Pending is how many requests in flight that key stands for: more than one for a batch. Default 1, with a key. All are admitted
	// or none, and more than Config.MaxPending never are.
	Pending int
}

// pending is how many requests are in flight more if this one is.
func (u Use) pending() int {
	if u.PendingKey == "" {
		return 0
	}
	return max(u.Pending, 1)
}

// Lease is the right to serve one request, or to hold one stream, of a session. It must be released.
type Lease struct {
	h       *holding
	session Session
	kind    leaseKind // guarded by h.mu
	ended   ending
	isAlone bool // granted without the store; set before anybody else sees it
	isHit   bool // granted from memory; likewise
	since   time.Time
	flights []flight  // what of it is in flight; none for a stream, or a message that expects no answer
	one     [1]flight // the memory of flights, for all but a batch

	released bool // guarded by h.mu

	release   sync.Once
	onRelease func() // may be nil
}

// leaseKind says what a lease is counted as.
type leaseKind int

const (
	forRequest leaseKind = iota
	forStream
	forWatch
	forAbandoned
)

// Session returns the record that the lease was granted with. Its moments of activity and counts are those of when this replica
// was last told the record, which it is when the version has changed.
func (l *Lease) Session() Session { return l.session }

// Current returns the latest record of the session that this replica holds, which may be newer than Session's. It asks
// nobody: what another replica has changed is known after the next report or lease.
func (l *Lease) Current() Session {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	return l.h.session
}

// Watch returns a lease that only hears of the session's end: it keeps the session known to this replica, but it is no request and
// does not keep the session from idling out. Where nothing else asks about the session at this replica, as [Manager.StreamStates]
// does, an end elsewhere is heard of within ten seconds and a report interval. l must not be released yet; the new lease is released
// on its own.
func (l *Lease) Watch() *Lease {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.h.watchers++
	return &Lease{h: l.h, session: l.h.session, kind: forWatch, ended: l.h.ended, since: time.Now()}
}

// Abandon says that nobody waits for the answer to the lease's request any more. It still counts as in flight, until Release, but it
// no longer keeps the session from idling out. On a lease of a stream, and called again, it does nothing.
func (l *Lease) Abandon() {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	if l.kind == forRequest && !l.released {
		l.kind = forAbandoned
		l.h.inFlight--
		l.h.abandoned++
	}
}

// Touch records that a message passed, in either direction. It is cheap: call it for every piece of a stream.
func (l *Lease) Touch() { l.h.touch(time.Now()) }

// Ended is closed when the session is known to have ended: at once when this replica ended it, within one lease validity
// (in strict mode: two report intervals) when another did, later while the store cannot be asked. Whoever streams for the
// lease must stop then. Of an open stream (Use.Stream) it is also closed when the store could not be asked about the session
// for Config.OutageGrace: the session may live, and a later stream be granted.
func (l *Lease) Ended() <-chan struct{} { return l.ended.Done() }

// SessionEnded reports whether it is known that the session has ended, which of an open stream Ended does not tell.
func (l *Lease) SessionEnded() bool { return l.h.ended.Err() != nil }

// AfterEnd has f called, in a goroutine of its own, when Ended is closed. stop keeps f from being called if it has not begun yet. It costs
// less than waiting: use it where the end is unlikely.
func (l *Lease) AfterEnd(f func()) (stop func() bool) { return context.AfterFunc(l.ended, f) }

// Release says that the request or stream is over. Calling it again does nothing.
func (l *Lease) Release() {
	l.release.Do(func() {
		l.h.close(l)
		if l.onRelease != nil {
			l.onRelease()
		}
	})
}

// Lease admits one request, or one stream, of the session that token names. Usually it answers from memory; when the
// replica's lease has run out, or its budget, it asks the store, which takes one round trip. In strict mode every call
// asks. While the store is away, a session that it has confirmed within Config.OutageGrace is served all the same, under a
// request limit that this replica applies by itself.
//
// Errors: [ErrNotFound] for anything but the live session of just this secret, principal and upstream; a [LimitError]
// that is [ErrRateLimited] or [ErrPendingLimited]; [ErrStoreUnavailable].
func (m *Manager) Lease(ctx context.Context, token Token, use Use) (*Lease, error) {
	use.Requests = max(use.Requests, 1)
	digest := token.Digest()
	if h := m.holding(token.ID); h != nil {
		l, err := h.serve(m, digest, use, time.Now())
		if l != nil {
			l.isHit = true
			m.observer.LeaseDone(LeaseHit)
			return l, nil
		}
		if err != nil {
			m.observer.LeaseDone(LeaseLimited)
			return nil, fmt.Errorf("leasing session %s: %w", token.ID, err)
		}
	}
	l, err := m.ask(ctx, token.ID, digest, use)
	m.observer.LeaseDone(OutcomeOf(l, err))
	if err != nil {
		return nil, fmt.Errorf("leasing session %s: %w", token.ID, err)
	}
	return l, nil
}

// ask gets a lease from the store. The holding is registered before the call, so that a session that ends here while the
// answer is on its way stays ended.
func (m *Manager) ask(caller context.Context, id ID, digest Digest, use Use) (*Lease, error) {
	ctx, cancel := m.storeContext(caller)
	defer cancel()
	h, others := m.hold(id)
	defer m.letGo(h, others == nil)

	want := use.Requests
	if m.cfg.Lease > 0 && m.cfg.RequestRate > 0 && others == nil {
		want = h.wanted(use.Requests, m.cfg.RequestBurst)
	}
	call := LeaseCall{
		ID: id, Digest: digest, Upstream: use.Upstream, Principal: use.Principal,
		Need: use.Requests, Want: want, KnownVersion: h.knownVersion(),
	}
	if use.PendingKey != "" && !h.isOvercounted() {
		call.Pending = use.pending()
	}
	sent := time.Now()
	grant, err := m.store.Lease(ctx, call)
	if isUnavailable(err, caller.Err()) {
		m.outage.heard(err, sent)
		return h.serveAlone(m, digest, use, time.Now(), err)
	}
	if !errors.Is(err, ErrStoreUnavailable) {
		m.outage.heard(nil, sent)
	}
	if errors.Is(err, ErrRateLimited) {
		return m.secondLook(ctx, h, others, digest, use, err)
	}
	if err != nil {
		if errors.Is(err, ErrNotFound) && h.isFor(digest, use) {
			m.drop(id)
		}
		return nil, err
	}
	return h.granted(m, grant, digest, use, sent)
}

// secondLook serves a refused caller from memory after all, if it can: what is missing in the store may just have come
// here, or be on its way, for all who ask at this time. Else the refusal is remembered, so that a client that goes on
// beyond its rate costs the store nothing.
func (m *Manager) secondLook(ctx context.Context, h *holding, others <-chan struct{}, digest Digest, use Use, refusal error) (*Lease, error) {
	if others != nil {
		select {
		case <-others:
		case <-ctx.Done():
		}
	}
	if limit, ok := errors.AsType[*LimitError](refusal); ok && use.Requests > m.cfg.RequestBurst {
		// No waiting helps, only smaller batches do.
		return nil, &LimitError{Limit: "request_burst", RetryAfter: limit.RetryAfter, Err: ErrRateLimited}
	}
	now := time.Now()
	if l, err := h.serve(m, digest, use, now); l != nil || err != nil {
		return l, err
	}
	h.refused(digest, use, now, refusal)
	return nil, refusal
}

// hold returns what this replica holds of a session, a new entry when nothing, and counts the caller as asking.
// One asker at a time asks for more than its own request: nil means that it is this one, else others is closed when that
// one is done.
func (m *Manager) hold(id ID) (h *holding, others <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h = m.held[id]
	if h == nil {
		h = newHolding(id)
		m.held[id] = h
	}
	h.asking++
	if h.provider == nil {
		h.provider = make(chan struct{})
		return h, nil
	}
	return h, h.provider
}

// letGo undoes hold. An entry that nothing was ever granted for goes when the last asker does, so that unknown tokens
// leave nothing behind.
func (m *Manager) letGo(h *holding, provider bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if provider {
		close(h.provider)
		h.provider = nil
	}
	h.asking--
	if h.asking == 0 && m.held[h.id] == h && !h.everGranted() {
		delete(m.held, h.id)
	}
}

// OutcomeOf says how a call of [Manager.Lease] was answered that has returned l and err.
func OutcomeOf(l *Lease, err error) LeaseOutcome {
	switch {
	case err == nil && l.isHit:
		return LeaseHit
	case err == nil && l.isAlone:
		return LeaseGrace
	case err == nil:
		return LeaseGranted
	case errors.Is(err, ErrNotFound):
		return LeaseNotFound
	case errors.Is(err, ErrRateLimited), errors.Is(err, ErrPendingLimited):
		return LeaseLimited
	case errors.Is(err, context.Canceled):
		return LeaseCanceled
	default:
		return LeaseUnavailable
	}
}
