package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

// StreamKind is what a stream to a client is for: each kind has a limit of its own.
type StreamKind string

// The kinds of streams that clients open by themselves. The answer to a request is none: it counts as a request in flight.
const (
	StreamListening StreamKind = "l" // what the session's upstream says of its own
	StreamResumed   StreamKind = "r" // the rest of an answer to a request whose connection broke
)

// OpenStream is a stream to a session's client that a replica has open.
type OpenStream struct {
	ID    ID
	Kind  StreamKind
	Key   string // unique in its session: 1 to 256 bytes
	Owner string // the incarnation that holds it: 1 to 256 bytes
}

// ListenerSuperseded is how long a stream that listens holds its place against others of its session. Only the latest is sent to, and the
// replica of an earlier one closes it when it looks the next time: it looks every ten seconds at least. What is counted for longer is
// what a replica has left that died or lost the store before it could tell, which keeps no client out, however long an outage lasts.
const ListenerSuperseded = 10 * time.Second

// openStreams are the streams of this replica that the store counts.
type openStreams struct {
	mu     sync.Mutex
	closed []OpenStream // the store is to forget them; each was open, so there are no more than that
	news   chan struct{}
}

// OpenStream counts the stream that a lease was granted for (Use.Stream) among its session's, over all replicas; releasing the lease ends
// that. It must be called once at most, before the lease is released.
//
// The limit of those that listen is Config.MaxStreams; those open for [ListenerSuperseded] make room for one more. Of resumed
// answers it is Config.MaxPending, if that is more: so many requests may have been waiting when a connection broke. While the store is
// away each replica counts for itself alone.
//
// Errors: [ErrNotFound]; a [LimitError] that is [ErrStreamsLimited].
func (m *Manager) OpenStream(ctx context.Context, l *Lease, kind StreamKind) error {
	limit, most := m.streamLimit(kind)
	if most == 0 {
		return nil
	}
	o := OpenStream{ID: l.h.id, Kind: kind, Key: rand.Text(), Owner: m.incarnation}
	here := l.h.opened(kind, 1)
	isOpen, err := m.countStream(ctx, o, most, here)
	switch {
	case err != nil:
		err = m.failed("opening a stream of", o.ID, err)
	case !isOpen:
		err = fmt.Errorf("opening a stream of session %s: %w", o.ID, &LimitError{Limit: limit, RetryAfter: m.cfg.ReportInterval, Err: ErrStreamsLimited})
	default:
		l.onRelease = func() {
			l.h.opened(kind, -1)
			m.streams.close(o)
		}
		return nil
	}
	l.h.opened(kind, -1)
	return err
}

// countStream reports whether a stream may be open; here is how many this replica has, this one included.
func (m *Manager) countStream(ctx context.Context, o OpenStream, most, here int) (bool, error) {
	for range 2 { // a second time when some of them are nobody's any more
		others, err := m.openStream(ctx, o, most)
		isUnknown := errors.Is(err, ErrStoreUnavailable)
		switch {
		case isUnknown && here > most:
			m.streams.close(o)
			return false, nil
		case err != nil && !isUnknown:
			return false, err
		case isUnknown, len(others) == 0:
			return true, nil
		case !m.closeOfDead(ctx, others):
			return false, nil
		}
	}
	return false, nil
}

// streamLimit is how many streams of a kind a session may have open, and the setting that says so; 0: any number.
func (m *Manager) streamLimit(kind StreamKind) (limit string, most int) {
	if m.cfg.MaxStreams == 0 || kind == StreamListening {
		return "max_streams", m.cfg.MaxStreams
	}
	if m.cfg.MaxPending == 0 {
		return "", 0
	}
	if m.cfg.MaxPending > m.cfg.MaxStreams {
		return "max_pending", m.cfg.MaxPending
	}
	return "max_streams", m.cfg.MaxStreams
}

func (m *Manager) openStream(ctx context.Context, o OpenStream, most int) ([]OpenStream, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	superseded := time.Duration(0)
	if o.Kind == StreamListening {
		superseded = ListenerSuperseded
	}
	return m.store.OpenStream(ctx, o, most, superseded)
}

// closeOfDead has those forgotten whose replica is dead. It reports whether there were any.
func (m *Manager) closeOfDead(ctx context.Context, open []OpenStream) bool {
	var dead []OpenStream
	for _, o := range open {
		if alive, err := m.Alive(ctx, o.Owner); err == nil && !alive {
			dead = append(dead, o)
		}
	}
	if len(dead) == 0 {
		return false
	}
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	m.store.CloseStreams(ctx, dead) // what fails is found again
	return true
}

// close has the store forget a stream, soon.
func (s *openStreams) close(closed ...OpenStream) {
	s.mu.Lock()
	s.closed = append(s.closed, closed...)
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// take takes out up to n of those that the store is to forget.
func (s *openStreams) take(n int) []OpenStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, len(s.closed))
	taken := s.closed[:n:n]
	s.closed = s.closed[n:]
	return taken
}

// keep takes back those that the store could not be told of.
func (s *openStreams) keep(untold []OpenStream) {
	s.mu.Lock()
	s.closed = append(untold, s.closed...)
	s.mu.Unlock()
}

// closeBatch is how many closed streams one call of Store.CloseStreams takes.
const closeBatch = 1000

// closeStreams has the store forget streams that were closed. While it is away they are kept, for the next report interval.
func (m *Manager) closeStreams(ctx context.Context) {
	for {
		closed := m.streams.take(closeBatch)
		if len(closed) == 0 {
			return
		}
		bounded, cancel := m.storeContext(ctx)
		errs := m.store.CloseStreams(bounded, closed)
		cancel()
		var untold []OpenStream
		for i, err := range errs {
			if err != nil {
				untold = append(untold, closed[i])
			}
		}
		if len(untold) > 0 {
			m.streams.keep(untold)
			return
		}
	}
}

// opened counts by more streams of a kind that this replica has open of the session, and returns how many those are.
func (h *holding) opened(kind StreamKind, by int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := &h.listening
	if kind == StreamResumed {
		n = &h.resumed
	}
	*n += by
	return *n
}
