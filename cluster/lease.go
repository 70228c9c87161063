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
	// PendingKey names the request in flight within its session: its direction and typed JSON-RPC id, at most 64 bytes.
	// Empty: the message expects no answer.
	PendingKey string
}

// Lease is the right to serve one request, or to hold one stream, of a session. It must be released.
type Lease struct {
	h          *holding
	session    Session
	stream     bool
	pendingKey string
	since      time.Time
	reported   bool // the store knows of it as pending; guarded by h.mu

	release sync.Once
}

// Session returns the record that the lease was granted with.
func (l *Lease) Session() Session { return l.session }

// Touch records that a message passed, in either direction. It is cheap: call it for every piece of a stream.
func (l *Lease) Touch() { l.h.touch(time.Now()) }

// Ended is closed when the session is known to have ended: at once when this replica ended it, within one lease validity
// when another did. Whoever streams for the lease must stop then.
func (l *Lease) Ended() <-chan struct{} { return l.h.ended }

// Release says that the request or stream is over. Calling it again does nothing.
func (l *Lease) Release() { l.release.Do(func() { l.h.close(l) }) }

// Lease admits one request, or one stream, of the session that token names. Usually it answers from memory; when the
// replica's lease has run out, or its budget, it asks the store, which takes one round trip. In strict mode every call
// asks.
//
// Errors: [ErrNotFound] for anything but the live session of just this secret, principal and upstream; a [LimitError]
// that is [ErrRateLimited]; [ErrStoreUnavailable].
func (m *Manager) Lease(ctx context.Context, token Token, use Use) (*Lease, error) {
	digest := token.Digest()
	if h := m.holding(token.ID); h != nil {
		if l := h.serve(m, digest, use, time.Now()); l != nil {
			m.observer.LeaseDone(LeaseHit)
			return l, nil
		}
	}
	l, err := m.ask(ctx, token.ID, digest, use)
	m.observer.LeaseDone(leaseOutcome(err))
	if err != nil {
		return nil, fmt.Errorf("leasing session %s: %w", token.ID, err)
	}
	return l, nil
}

// ask gets a lease from the store. The holding is registered before the call, so that a session that ends here while the
// answer is on its way stays ended.
func (m *Manager) ask(ctx context.Context, id ID, digest Digest, use Use) (*Lease, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	h := m.hold(id)
	defer m.letGo(h)

	want := 1
	if m.cfg.Lease > 0 {
		want = h.wanted(m.cfg.RequestBurst)
	}
	sent := time.Now()
	grant, err := m.store.Lease(ctx, LeaseCall{ID: id, Digest: digest, Upstream: use.Upstream, Principal: use.Principal, Want: want})
	if err != nil {
		if errors.Is(err, ErrNotFound) && h.isFor(digest, use) {
			m.drop(id)
		}
		return nil, err
	}
	l := h.granted(m, grant, digest, use, sent)
	if l == nil {
		return nil, ErrNotFound
	}
	return l, nil
}

// hold returns what this replica holds of a session, a new entry when nothing, and counts the caller as asking.
func (m *Manager) hold(id ID) *holding {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.held[id]
	if h == nil {
		h = newHolding(id)
		m.held[id] = h
	}
	h.asking++
	return h
}

// letGo undoes hold. An entry that nothing was ever granted for goes when the last asker does, so that unknown tokens
// leave nothing behind.
func (m *Manager) letGo(h *holding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h.asking--
	if h.asking == 0 && m.held[h.id] == h && !h.everGranted() {
		delete(m.held, h.id)
	}
}

func leaseOutcome(err error) LeaseOutcome {
	switch {
	case err == nil:
		return LeaseGranted
	case errors.Is(err, ErrNotFound):
		return LeaseNotFound
	case errors.Is(err, ErrRateLimited):
		return LeaseLimited
	default:
		return LeaseUnavailable
	}
}
