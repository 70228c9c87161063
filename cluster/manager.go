package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Manager gives one replica its view of the cluster's sessions. It is safe for concurrent use. [Manager.Run] must be
// running for leases to be renewed and activity to reach the store.
type Manager struct {
	store       Store
	cfg         Config
	log         *slog.Logger
	observer    Observer
	trail       Trail
	ended       func([]Session)
	incarnation string

	replicas replicaList

	outage outage

	streams openStreams

	allowances allowances

	told atomic.Int64 // how many requests in flight have got a name

	mu   sync.Mutex
	held map[ID]*holding // what this replica holds leases of; at most one entry a live session
}

// Options are the parts of a Manager that are not limits. The zero value works.
type Options struct {
	// ReplicaID names this replica to operators. Default: random.
	ReplicaID string
	// Logger default: discards.
	Logger *slog.Logger
	// Observer default: none.
	Observer Observer
	// Actor and By are who audit records say it was, where it was not the client. Default: [ActorReplica], and the incarnation.
	Actor Actor
	By    string
	// Auditor is told of every session that this Manager creates, activates or ends, beside the log. Default: none.
	Auditor Auditor
	// Ended is told of sessions that were ended to make room for others, so that their upstream sessions may be ended, too.
	// It must return at once. Default: nobody is told.
	Ended func([]Session)
}

// NewManager returns a manager over store. The error says everything that is wrong with cfg; see [Config.Validate].
func NewManager(store Store, cfg Config, opts Options) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("session limits: %w", err)
	}
	m := &Manager{
		store: store,
		cfg:   cfg,
		log:   cmp.Or(opts.Logger, slog.New(slog.DiscardHandler)),
		// A restarted replica keeps its name but is somebody else: what it held before is not its own any more.
		incarnation: cmp.Or(opts.ReplicaID, "replica") + "/" + rand.Text()[:8],
		observer:    opts.Observer,
		held:        make(map[ID]*holding),
		replicas:    replicaList{turn: make(chan struct{}, 1)},
		allowances:  allowances{all: make(map[Principal]*allowance)},
		streams:     openStreams{news: make(chan struct{}, 1)},
	}
	m.trail = Trail{Log: m.log, Auditor: opts.Auditor, Actor: cmp.Or(opts.Actor, ActorReplica), By: cmp.Or(opts.By, m.incarnation)}
	m.ended = opts.Ended
	if m.observer == nil {
		m.observer = noObserver{}
	}
	return m, nil
}

// Incarnation names this run of this replica: the replica's ID and a random part.
func (m *Manager) Incarnation() string { return m.incarnation }

// createCalls is how many calls one creation may need of a store, one after another: usually its principal's limits, the rate
// of creation, the choice of a place, and the creation itself; at the cap it looks further.
const createCalls = 12

// Create makes an initializing session and the token for its client. The session must be activated within
// Config.InitializeTimeout.
//
// Errors: a [LimitError] that is [ErrCapacity], [ErrPrincipalCapacity] or [ErrCreationLimited]; [ErrStoreUnavailable], after which a
// session that nobody has the token of may exist until its initialize timeout.
func (m *Manager) Create(ctx context.Context, n NewSession) (Session, Token, error) {
	if len(n.Upstream) > maxNameLen {
		return Session{}, Token{}, fmt.Errorf("creating session: the upstream's name has %d bytes, more than %d", len(n.Upstream), maxNameLen)
	}
	if !n.Principal.Valid() {
		return Session{}, Token{}, fmt.Errorf("creating session: the principal is not 1 to %d letters, digits, hyphens and underscores", maxNameLen)
	}
	n.ClientName = cut(n.ClientName, maxClientNameLen)
	n.ClientVersion = cut(n.ClientVersion, maxClientNameLen)
	if len(n.Initialize) > maxInitializeLen {
		n.Initialize = nil
	}
	ctx, cancel := context.WithTimeout(ctx, createCalls*m.cfg.StoreTimeout)
	defer cancel()
	created, err := m.store.Create(ctx, Creation{NewSession: n})
	for _, ended := range created.Ended { // with a refusal, too
		m.drop(ended.ID)
		actor, reason := endedBy(ended.Status)
		m.trail.Ended(actor, reason, ended)
	}
	if m.ended != nil && len(created.Ended) > 0 {
		m.ended(created.Ended)
	}
	if err != nil {
		return Session{}, Token{}, fmt.Errorf("creating session: %w", err)
	}
	m.trail.Record(Audit{
		At: created.Session.CreatedAt, Action: ActionCreated, Session: created.Session.ID, Principal: n.Principal, Upstream: n.Upstream,
		Actor: ActorClient, Reason: "initialize",
	})
	return created.Session, created.Token, nil
}

// Activate records the upstream's answer to initialize: s becomes active. s is the record that Create returned; the
// changed one is returned. With another s.Endpoint than it was created with, the session is pinned to that.
//
// Errors: [ErrNotFound], [ErrIllegalTransition] when the session has ended meanwhile, [ErrConflict] when another replica
// changed it, [ErrStoreUnavailable].
func (m *Manager) Activate(ctx context.Context, s Session, a Activation) (Session, error) {
	if len(a.UpstreamSession) > maxUpstreamSessionLen {
		return Session{}, fmt.Errorf("activating session %s: the upstream's session id has %d bytes, more than %d",
			s.ID, len(a.UpstreamSession), maxUpstreamSessionLen)
	}
	if len(a.Revision) > maxNameLen {
		return Session{}, fmt.Errorf("activating session %s: the upstream's protocol revision has %d bytes, more than %d",
			s.ID, len(a.Revision), maxNameLen)
	}
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	changed, err := m.store.Update(ctx, Change{
		Activation:      a,
		ID:              s.ID,
		Endpoint:        s.Endpoint,
		ExpectedVersion: s.Version,
		Writer:          rand.Text()[:13],
	})
	if err != nil {
		return Session{}, fmt.Errorf("activating session %s: %w", s.ID, err)
	}
	m.trail.Record(Audit{
		At: changed.LastActivityAt, Action: ActionActivated, Session: s.ID, Principal: changed.Principal, Upstream: changed.Upstream,
		Actor: ActorClient, Reason: "the upstream has answered",
	})
	return changed, nil
}

// Terminate ends a live session; status says why. At this replica it is over when Terminate returns, at the others
// within one lease validity. The record is returned.
//
// Errors: [ErrNotFound]; [ErrIllegalTransition] with the record when the session had ended already, its first status
// stays; [ErrStoreUnavailable], after which the session may or may not have ended: calling again is safe.
func (m *Manager) Terminate(ctx context.Context, id ID, status Status) (Session, error) {
	if !status.Ended() {
		return Session{}, fmt.Errorf("terminating session %s as %q: %w", id, status, ErrIllegalTransition)
	}
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	s, err := m.store.Terminate(ctx, id, status)
	if err == nil || errors.Is(err, ErrIllegalTransition) || errors.Is(err, ErrNotFound) {
		m.drop(id)
	}
	if errors.Is(err, ErrExpired) {
		m.trail.Ended("", reasonPastEnd, s)
	}
	if err != nil {
		return s, fmt.Errorf("terminating session %s: %w", id, err)
	}
	actor, reason := endedBy(s.Status)
	m.trail.Ended(actor, reason, s)
	return s, nil
}

const reasonPastEnd = "past its end"

// endedBy says who ends a session with a status, and why. No actor is who uses the Manager.
func endedBy(status Status) (Actor, string) {
	switch status {
	case StatusClosed:
		return ActorClient, "the client has ended it"
	case StatusTerminated:
		return ActorOperator, "an operator has ended it"
	case StatusFailed:
		return "", "it could not be initialized"
	case StatusExpired:
		return "", reasonPastEnd
	case StatusEvicted:
		return "", "made room for a new session"
	default:
		return "", ""
	}
}

// Get returns a session's record, live or ended, until it is purged. Errors: [ErrNotFound], [ErrStoreUnavailable].
func (m *Manager) Get(ctx context.Context, id ID) (Session, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	s, err := m.store.Get(ctx, id)
	if err != nil {
		return Session{}, fmt.Errorf("reading session %s: %w", id, err)
	}
	return s, nil
}

// List returns one page of sessions. Errors: [ErrInvalidCursor], [ErrInvalidQuery], [ErrStoreUnavailable].
func (m *Manager) List(ctx context.Context, q Query) (Page, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	page, err := m.store.List(ctx, q)
	if err != nil {
		return Page{}, fmt.Errorf("listing sessions: %w", err)
	}
	return page, nil
}

// Stats counts the cluster's sessions. Errors: [ErrStoreUnavailable].
func (m *Manager) Stats(ctx context.Context) (Stats, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	stats, err := m.store.Stats(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("counting sessions: %w", err)
	}
	return stats, nil
}

// storeContext bounds one call of the store.
func (m *Manager) storeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, m.cfg.StoreTimeout)
}

// holding returns what this replica holds of a session, nil when nothing.
func (m *Manager) holding(id ID) *holding {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held[id]
}

// drop forgets a session and tells everyone who still streams for it.
func (m *Manager) drop(id ID) {
	m.mu.Lock()
	h := m.held[id]
	delete(m.held, id)
	m.mu.Unlock()
	if h != nil {
		h.end()
	}
}

// Held returns how many sessions this replica holds leases of.
func (m *Manager) Held() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.held)
}

// leaseEnd returns until when an answer of the store may be trusted: counted from when it was asked, never past the
// session's own end.
func (m *Manager) leaseEnd(sent time.Time, endsIn time.Duration) time.Time {
	if endsIn >= 0 && endsIn < m.cfg.Lease {
		return sent.Add(endsIn)
	}
	return sent.Add(m.cfg.Lease)
}
