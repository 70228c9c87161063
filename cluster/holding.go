package cluster

import (
	"context"
	"errors"
	"sync"
	"time"
)

// holding is what a replica holds of one session: the record, how long it may be trusted, the request budget, and what
// has happened since the store last heard of it. Its methods do not call the store.
type holding struct {
	id     ID
	asking int // callers between Manager.hold and letGo; guarded by Manager.mu
	// provider is closed when the caller is done that asks for more than its own request; nil: there is none. Guarded by
	// Manager.mu.
	provider chan struct{}

	mu         sync.Mutex
	isGranted  bool      // the store has granted it at least once
	digest     Digest    // of the secret that it was granted to
	session    Session   // the record
	toldAt     time.Time // when the store had told it
	validUntil time.Time // the record is served from memory before this
	endsAt     time.Time // the session's end as the store last told it; zero: never
	oldAt      time.Time // the end of its maximum age; zero: never

	// Request budget, in two generations: a report moves fresh to aging and gives aging back, so that nothing is held
	// for two intervals, and never longer than the lease it came with.
	fresh, aging budget

	recordedAt time.Time // the latest activity that the store knows of
	touchedAt  time.Time // the latest activity
	checkedAt  time.Time // when the store last confirmed that the session lives
	requests   int       // served from memory, not reported yet
	spent      int       // all requests since the last report: what the next grant is sized by

	refusedUntil time.Time // the store has said that there is no budget before this

	left    int   // how many requests were left for all, when the store was last heard of
	alone   alone // the request limit while the store is away
	isAlone bool  // served without the store, since that was last heard of

	inFlight  int
	streams   int
	listening int // of those, that OpenStream has let in
	resumed   int // likewise
	abandoned int // in flight, too, and nobody waits for the answer
	watchers  int
	waiting   int                  // of inFlight, those that expect an answer
	pending   map[*flight]struct{} // those
	told      map[string]*flight   // of those, the ones that the store knows of, or may know, by name
	finished  []string             // names of those that are over since
	telling   int                  // how many of those the report on its way to the store tells
	elsewhere int                  // how many the store has of others, as it last said

	ended      ending // of the session, as far as it is known
	streamsEnd ending // then, or when its streams must not go on
	isOver     bool
}

// budget is a number of requests, spendable for one lease from the moment they were asked for.
type budget struct {
	n     int
	at    time.Time // by our clock
	since time.Time // by the store's
}

// left returns how many requests there are that are not too old.
func (b *budget) left(now time.Time, validity time.Duration) int {
	if now.Sub(b.at) >= validity {
		return 0
	}
	return b.n
}

// add puts n requests that were asked for at the moment at into the budget. The age of all is the age of the oldest;
// those too old to be spent are dropped, or they would spoil the new ones.
func (b *budget) add(n int, at, since time.Time, validity time.Duration) {
	if n <= 0 {
		return
	}
	if at.Sub(b.at) >= validity {
		b.n = 0
	}
	if b.n == 0 || at.Before(b.at) {
		b.at = at
	}
	if b.n == 0 || since.Before(b.since) {
		b.since = since
	}
	b.n += n
}

func newHolding(id ID) *holding {
	return &holding{id: id, ended: newEnding(), streamsEnd: newEnding()}
}

// ending is a moment that some wait for and others want to be called at, which is cheaper for those who hardly ever are.
type ending struct {
	context.Context

	come context.CancelFunc
}

func newEnding() ending {
	ctx, cancel := context.WithCancel(context.Background())
	return ending{Context: ctx, come: cancel}
}

// serve admits one request from memory, or refuses it. It returns neither when the store must be asked.
func (h *holding) serve(m *Manager, digest Digest, use Use, now time.Time) (*Lease, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isOver || !h.matches(digest, use) || !now.Before(h.validUntil) {
		return nil, nil //nolint:nilnil // the third outcome
	}
	if err := h.tooMany(m, use); err != nil {
		return nil, err
	}
	if m.cfg.RequestRate > 0 && !h.spend(use.Requests, now, m.cfg.Lease) {
		return nil, h.stillRefused(m, now)
	}
	h.requests += use.Requests
	h.spent += use.Requests
	h.touchedAt = now
	return h.open(use, now), nil
}

// spend takes n requests out of the budget, the older ones first, or none. The caller holds h.mu.
func (h *holding) spend(n int, now time.Time, validity time.Duration) bool {
	aging, fresh := h.aging.left(now, validity), h.fresh.left(now, validity)
	if aging+fresh < n {
		return false
	}
	h.aging.n -= min(aging, n)
	h.fresh.n -= n - min(aging, n)
	return true
}

// refused remembers until when the store refuses the owner's requests: no longer than a lease, because others may give
// budget back.
func (h *holding) refused(digest Digest, use Use, now time.Time, refusal error) {
	limit, ok := errors.AsType[*LimitError](refusal)
	if !ok || use.Requests > 1 { // one request may be admitted sooner than several
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.matches(digest, use) {
		h.refusedUntil = now.Add(limit.RetryAfter)
	}
}

// stillRefused returns the refusal that the store would give, if it is known. The caller holds h.mu.
func (h *holding) stillRefused(m *Manager, now time.Time) error {
	if m.cfg.Lease == 0 || !now.Before(h.refusedUntil) { // in strict mode every call asks
		return nil
	}
	return &LimitError{Limit: "request_rate", RetryAfter: h.refusedUntil.Sub(now), Err: ErrRateLimited}
}

// matches reports whether a caller is the one that the record was granted to. The caller holds h.mu.
func (h *holding) matches(digest Digest, use Use) bool {
	return h.isGranted && h.digest.Equal(digest) && h.session.Upstream == use.Upstream && h.session.Principal == use.Principal
}

// granted takes in what the store granted for a call sent at the moment sent, and opens the lease that asked for it.
// It fails when the session ended meanwhile, or as many requests were admitted meanwhile as may be in flight.
func (h *holding) granted(m *Manager, g Grant, digest Digest, use Use, sent time.Time) (*Lease, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isOver {
		return nil, ErrNotFound
	}
	h.isGranted, h.digest = true, digest
	if !g.IsKnown {
		h.learn(g.Session, sent)
	}
	h.renewed(m, g.EndsIn, g.At, sent)
	h.left = g.Left
	h.elsewhere = max(g.Pending-h.known(), 0)
	// The call itself recorded this activity: it is not reported again.
	h.recordedAt = later(h.recordedAt, sent)
	h.touchedAt = later(h.touchedAt, sent)
	if err := h.tooMany(m, use); err != nil {
		h.fresh.add(g.Budget, sent, g.At, m.cfg.Lease)
		return nil, err
	}
	h.fresh.add(g.Budget-use.Requests, sent, g.At, m.cfg.Lease)
	h.spent += use.Requests
	return h.open(use, sent), nil
}

// learn takes in a record that the store has told in answer to a call sent at the moment sent. Of two calls under way at a time the answers
// may overtake each other, and the later version counts. What is asked after a record was told is what the store has now, also where
// that is an earlier version: a failover has lost the later one. Leases that are open keep the record they were granted with. The caller
// holds h.mu.
func (h *holding) learn(s Session, sent time.Time) {
	if s.Version >= h.session.Version || sent.After(h.toldAt) {
		h.session, h.toldAt = s, time.Now()
	}
}

// isFor is matches for callers that do not hold h.mu.
func (h *holding) isFor(digest Digest, use Use) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.matches(digest, use)
}

func (h *holding) everGranted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.isGranted
}

// knownVersion is the version of the record that is held; 0: there is none.
func (h *holding) knownVersion() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.session.Version
}

// renewed prolongs trust after the store confirmed the session. The caller holds h.mu.
func (h *holding) renewed(m *Manager, endsIn time.Duration, at, sent time.Time) {
	h.validUntil = later(h.validUntil, m.leaseEnd(sent, endsIn))
	h.confirmed(m, sent)
	h.endsAt = time.Time{}
	if endsIn >= 0 {
		h.endsAt = sent.Add(endsIn)
	}
	h.oldAt = time.Time{}
	if m.cfg.MaxAge > 0 {
		// By the store's clock the session is so old, and by ours it was not older when it was asked.
		h.oldAt = sent.Add(m.cfg.MaxAge - at.Sub(h.session.CreatedAt))
	}
	h.alone, h.isAlone = alone{}, false
}

// open registers a request or stream. The caller holds h.mu.
func (h *holding) open(use Use, now time.Time) *Lease {
	l := &Lease{h: h, session: h.session, ended: h.ended, since: now}
	if use.Stream {
		l.kind, l.ended = forStream, h.streamsEnd
		h.streams++
		return l
	}
	h.inFlight++
	if n := use.pending(); n > 0 {
		h.waiting += n
		h.takeOff(l, use.PendingKey, n)
	}
	return l
}

// close ends what open or Lease.Watch registered.
func (h *holding) close(l *Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.released = true
	switch l.kind {
	case forStream:
		h.streams--
		return
	case forWatch:
		h.watchers--
		return
	case forAbandoned:
		h.abandoned--
	case forRequest:
		h.inFlight--
	}
	h.waiting -= len(l.flights)
	h.land(l)
}

func (h *holding) touch(now time.Time) {
	h.mu.Lock()
	h.touchedAt = later(h.touchedAt, now)
	h.mu.Unlock()
}

// wanted returns how much budget to ask for with the requests in hand: those, and as much again as was really spent since
// the last report, so that a quiet client's requests are never hoarded.
func (h *holding) wanted(inHand, burst int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(min(inHand+h.spent, burst), inHand)
}

// end marks the session as over and wakes its streams.
func (h *holding) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.isOver {
		h.isOver = true
		h.ended.come()
		h.streamsEnd.come()
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
