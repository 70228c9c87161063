package storetest

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// model is what a store must behave like: plain Go, one thing at a time, no indexes that could drift, nothing remembered
// twice. The methods of this and the other model_*.go files answer as the store must.
type model struct {
	cfg      cluster.Config
	now      time.Time // the store's clock, to the microsecond
	sessions map[cluster.ID]*modelled
	created  int64
	ended    map[cluster.Status]int64
	purged   []cluster.ID // since the last sweep

	places    map[cluster.Principal]*places
	creations map[cluster.Principal]*bucket // of each principal, and without a name of all
	lose      int                           // the reply of the so manieth exchange from now is lost; 0: none
}

// modelled is a session, live or ended. Its Session.Pending is not used: pending is counted.
type modelled struct {
	cluster.Session
	digest  cluster.Digest
	writer  string
	arrival int64             // of the request rate, us
	pending map[string]string // key -> owner
	events  keptEvents
	frames  keptFrames
}

func newModel(cfg cluster.Config, now time.Time) *model {
	return &model{
		cfg: cfg, now: now,
		sessions: make(map[cluster.ID]*modelled), ended: make(map[cluster.Status]int64),
		places: make(map[cluster.Principal]*places), creations: make(map[cluster.Principal]*bucket),
	}
}

// asked notes one exchange of the store with its server, and reports whether the reply is lost although the effect is there.
// What may run twice without harm is asked again: then the loss shows only where the method says so.
func (m *model) asked() (lost bool) {
	if m.lose == 0 {
		return false
	}
	m.lose--
	return m.lose == 0
}

// at is the clock by which sessions live: to the millisecond.
func (m *model) at() time.Time { return m.now.Truncate(time.Millisecond) }

// due reports whether a session is past its end and waits to be swept.
func (m *model) due(s *modelled) bool { return s.Status.Live() && s.EndedAtOrBefore(m.at()) }

// record is what the store keeps of a session.
func (s *modelled) record() cluster.Session {
	r := s.Session
	r.Pending = len(s.pending)
	return r
}

// seen is the record as readers are shown it: one that is past its end is expired, swept or not.
func (m *model) seen(s *modelled) cluster.Session {
	r := s.record()
	if m.due(s) {
		r.Status = cluster.StatusExpired
	}
	return r
}

// ordered returns the live sessions, or the ended ones, by a moment of each.
func (m *model) ordered(live bool, by func(*modelled) time.Time) []*modelled {
	var some []*modelled
	for _, s := range m.sessions {
		if s.Status.Live() == live {
			some = append(some, s)
		}
	}
	slices.SortFunc(some, func(a, b *modelled) int { return cmp.Or(by(a).Compare(by(b)), bytes.Compare(a.ID[:], b.ID[:])) })
	return some
}

func byActivity(s *modelled) time.Time { return s.LastActivityAt }

// byEnd is the end of a live session, or the purge of an ended one.
func byEnd(s *modelled) time.Time {
	if s.DeadlineAt.IsZero() {
		return time.Unix(1<<40, 0) // never
	}
	return s.DeadlineAt
}

// finish ends a live session and returns its last record. What only a live one needs is gone.
func (m *model) finish(s *modelled, status cluster.Status) cluster.Session {
	s.Status, s.EndedAt, s.DeadlineAt = status, m.at(), m.at().Add(m.cfg.Retention)
	s.Version++
	s.pending, s.events = nil, keptEvents{}
	m.ended[status]++
	return s.record()
}

// tidy purges, when n sessions have been ended, up to two for each of them that are past their retention or over the cap, the
// oldest first.
func (m *model) tidy(n int) {
	for range 2 * n {
		kept := m.ordered(false, byEnd)
		tooMany := m.cfg.MaxSessions > 0 && len(kept) > m.cfg.MaxSessions
		if len(kept) > 0 && (tooMany || !m.at().Before(kept[0].DeadlineAt)) {
			m.purge(kept[0])
		}
	}
}

// purge removes an ended session.
func (m *model) purge(s *modelled) {
	delete(m.sessions, s.ID)
	m.purged = append(m.purged, s.ID)
}

// create makes a session, its token being drawn by the store or given by the caller, who may have given it before.
func (m *model) create(c cluster.Creation, drawn bool) (cluster.Created, error) {
	if !drawn {
		m.asked() // whether it is there
	}
	if known := m.sessions[c.Token.ID]; known != nil {
		m.asked()
		return cluster.Created{Session: known.record(), Token: c.Token}, nil
	}
	if err := m.admit(c); err != nil {
		return cluster.Created{}, err
	}
	ended, wait := m.makeRoom()
	if wait == 0 {
		m.sessions[c.Token.ID] = m.initializing(c)
		m.created++
	}
	if m.asked() && wait == 0 {
		ended = nil // the one that asks again finds the session made, and is not told what was ended for it
	}
	m.release(ended...)
	if wait > 0 {
		m.release(cluster.Session{ID: c.Token.ID, Principal: c.Principal})
		return cluster.Created{Ended: ended}, &cluster.LimitError{Limit: "max_sessions", RetryAfter: wait, Err: cluster.ErrCapacity}
	}
	return cluster.Created{Session: m.sessions[c.Token.ID].record(), Token: c.Token, Ended: ended}, nil
}

// makeRoom ends up to two sessions: those past their end, then, at the cap, the least recently used. It returns how long
// to wait when there is no room yet.
func (m *model) makeRoom() (ended []cluster.Session, wait time.Duration) {
	full := func() bool { return m.cfg.MaxSessions > 0 && len(m.ordered(true, byEnd)) >= m.cfg.MaxSessions }
	for range 2 {
		if live := m.ordered(true, byEnd); len(live) > 0 && m.due(live[0]) {
			ended = append(ended, m.finish(live[0], cluster.StatusExpired))
			m.tidy(1)
		} else if full() {
			oldest := m.ordered(true, byActivity)[0]
			if wait = m.cfg.EvictMinIdle - m.at().Sub(oldest.LastActivityAt); wait <= 0 {
				ended = append(ended, m.finish(oldest, cluster.StatusEvicted))
				m.tidy(1)
			}
		}
	}
	if !full() {
		return ended, 0
	}
	return ended, max(wait, time.Millisecond)
}

func (m *model) initializing(c cluster.Creation) *modelled {
	return &modelled{digest: c.Token.Digest(), Session: cluster.Session{
		ID: c.Token.ID, Status: cluster.StatusInitializing, Version: 1, Principal: c.Principal,
		Upstream: c.Upstream, Endpoint: c.Endpoint, ClientName: c.ClientName, ClientVersion: c.ClientVersion,
		CreatedAt: m.at(), LastActivityAt: m.at(), DeadlineAt: m.at().Add(m.cfg.InitializeTimeout),
	}}
}

// update activates a session, or changes its mapping.
func (m *model) update(c cluster.Change) (cluster.Session, error) {
	m.asked()
	s := m.sessions[c.ID]
	switch {
	case s == nil:
		return cluster.Session{}, cluster.ErrNotFound
	case s.EndedAtOrBefore(m.at()):
		return cluster.Session{}, cluster.ErrIllegalTransition
	case s.writer == c.Writer: // it has done so before
		return s.record(), nil
	case s.Version != c.ExpectedVersion:
		return cluster.Session{}, cluster.ErrConflict
	}
	next := s.Version + 1
	if s.Status == cluster.StatusActive { // the time in us, but the last three digits, which count
		next = max(next, m.at().UnixMilli()*1000+min(next%1000, 998))
	}
	s.Status, s.writer, s.UpstreamSession = cluster.StatusActive, c.Writer, c.UpstreamSession
	s.Endpoint, s.Revision = cmp.Or(c.Endpoint, s.Endpoint), cmp.Or(c.Revision, s.Revision)
	s.Version = next
	m.touch(s)
	return s.record(), nil
}

// touch moves a session's activity to now, and its end accordingly.
func (m *model) touch(s *modelled) {
	s.LastActivityAt = later(s.LastActivityAt, m.at())
	s.DeadlineAt = m.endAfter(s, s.LastActivityAt, time.Time{})
}

// endAfter is when a session ends that was active at a moment, not before another one, but always at its maximum age; zero
// for never.
func (m *model) endAfter(s *modelled, activity, notBefore time.Time) time.Time {
	var end time.Time
	if m.cfg.IdleTimeout > 0 {
		end = later(activity.Add(m.cfg.IdleTimeout+m.cfg.ReportSlack), notBefore)
	}
	if old := s.CreatedAt.Add(m.cfg.MaxAge); m.cfg.MaxAge > 0 && (end.IsZero() || old.Before(end)) {
		end = old
	}
	return end
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// terminate ends a session. After a lost reply the caller cannot be told apart from an earlier one who asked for the same,
// and without retention there is nothing left to tell.
func (m *model) terminate(id cluster.ID, status cluster.Status) (cluster.Session, error) {
	s := m.sessions[id]
	if s == nil {
		m.asked()
		return cluster.Session{}, cluster.ErrNotFound
	}
	illegal, refusal := s.EndedAtOrBefore(m.at()), cluster.ErrIllegalTransition
	last := s.record()
	if s.Status.Live() {
		if illegal {
			refusal = cluster.ErrExpired
			last = m.finish(s, cluster.StatusExpired)
		} else {
			last = m.finish(s, status)
		}
		m.tidy(1)
	}
	lost := m.asked()
	if lost && m.sessions[id] == nil {
		return cluster.Session{}, cluster.ErrNotFound
	}
	m.release(last)
	if lost {
		refusal = cluster.ErrIllegalTransition // who asks again finds it ended
	}
	if illegal && (!lost || last.Status != status) {
		return last, refusal
	}
	return last, nil
}

// sweep purges what is past its retention, then ends what is past its end.
func (m *model) sweep() (cluster.Swept, error) {
	var swept cluster.Swept
	if m.asked() { // what the time is
		return swept, cluster.ErrStoreUnavailable
	}
	m.purged = nil
	for _, s := range m.ordered(false, byEnd) {
		if !m.at().Before(s.DeadlineAt) {
			m.purge(s)
		}
	}
	for _, s := range m.ordered(true, byEnd) {
		if m.due(s) {
			swept.Expired = append(swept.Expired, m.finish(s, cluster.StatusExpired))
		}
	}
	m.tidy(len(swept.Expired))
	if m.asked() {
		return cluster.Swept{}, cluster.ErrStoreUnavailable
	}
	swept.Purged = m.purged
	m.release(swept.Expired...)
	return swept, nil
}

// get reads a record, live or ended.
func (m *model) get(id cluster.ID) (cluster.Session, error) {
	m.asked()
	if s := m.sessions[id]; s != nil {
		return m.seen(s), nil
	}
	return cluster.Session{}, cluster.ErrNotFound
}
