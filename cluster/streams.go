package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Append stores events of a session; see [EventStore]. Errors: [ErrNotFound], [ErrStaleClaim], [ErrStoreUnavailable].
func (m *Manager) Append(ctx context.Context, a EventAppend) (Appended, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	appended, err := m.store.AppendEvents(ctx, a)
	if err != nil {
		return Appended{}, m.failed("storing events of", a.ID, err)
	}
	return appended, nil
}

// Events reads events of several streams; see [EventStore]. It returns one page for each query, in order. The error of a page
// is nil, [ErrNotFound], [ErrEventsGone] or [ErrStoreUnavailable].
func (m *Manager) Events(ctx context.Context, queries []EventQuery) []EventPage {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	pages := m.store.ReadEvents(ctx, queries)
	for i := range pages {
		if pages[i].Err != nil {
			pages[i].Err = m.failed("reading events of", queries[i].ID, pages[i].Err)
		}
	}
	return pages
}

// ClaimStream takes a part in a session's own stream; see [StreamStore]. Without an owner it is this replica's. Errors:
// [ErrNotFound], [ErrStoreUnavailable].
func (m *Manager) ClaimStream(ctx context.Context, c StreamClaim) (StreamState, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	c.Owner = cmp.Or(c.Owner, m.incarnation)
	state, err := m.store.ClaimStream(ctx, c)
	if err != nil {
		return StreamState{}, m.failed("claiming the stream of", c.ID, err)
	}
	return state, nil
}

// ReleaseStream gives up the claim to read a session's own stream; see [StreamStore]. Errors: [ErrNotFound], [ErrStaleClaim],
// [ErrStoreUnavailable].
func (m *Manager) ReleaseStream(ctx context.Context, id ID, claim int64) error {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	if err := m.store.ReleaseStream(ctx, id, claim); err != nil {
		return m.failed("releasing the stream of", id, err)
	}
	return nil
}

// StreamStates tells about the own streams of sessions; see [StreamStore]. It returns one state for each ID, in order. The error
// of a state is nil, [ErrNotFound] or [ErrStoreUnavailable]. A session whose state is told lives, so it is not asked about again soon.
func (m *Manager) StreamStates(ctx context.Context, ids []ID) []StreamState {
	states := make([]StreamState, 0, len(ids))
	for batch := range slices.Chunk(ids, checkBatch) { // so many take a part of the store's timeout only
		some := m.streamStates(ctx, batch)
		states = append(states, some...)
		if err := some[0].Err; errors.Is(err, ErrStoreUnavailable) && !errors.Is(err, ErrNotSent) {
			break // the others would wait as long, one batch after the other
		}
	}
	for range ids[len(states):] {
		states = append(states, StreamState{Err: fmt.Errorf("looking at streams: %w", ErrStoreUnavailable)})
	}
	return states
}

// streamStates is StreamStates for one batch.
func (m *Manager) streamStates(ctx context.Context, ids []ID) []StreamState {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	sent := time.Now()
	states := m.store.StreamStates(ctx, ids)
	for i := range states {
		if states[i].Err != nil {
			states[i].Err = m.failed("looking at the stream of", ids[i], states[i].Err)
		} else if h := m.holding(ids[i]); h != nil {
			h.checked(m, sent)
		}
	}
	return states
}

// failed says what has failed for which session. One that is not found, or not active, has ended: whoever streams for it here is
// told.
func (m *Manager) failed(doing string, id ID, err error) error {
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrIllegalTransition) {
		m.drop(id)
	}
	return fmt.Errorf("%s session %s: %w", doing, id, err)
}

const (
	// replicasFresh is for how long one look at the list of replicas answers Alive.
	replicasFresh = time.Second
	// replicasDoubt is for how long after a look that failed, or that did not find this replica itself, nobody is taken for
	// dead: after an outage of the store all need the time to say again that they live.
	replicasDoubt = replicasFresh + 2*beatInterval
	// maxAsked bounds what is remembered of whom Alive was asked about.
	maxAsked = 1000
)

// replicaList is what a replica last heard about who lives.
type replicaList struct {
	turn    chan struct{} // holds one token while somebody looks or reads
	looks   int           // how many there have been
	at      time.Time     // of the last look
	err     error         // of that
	alive   []string
	doubted time.Time // no one is taken for dead before this
	// asked is how many looks there had been when somebody was first asked about: a replica that has just started is in no list that was
	// read before.
	asked map[string]int
}

// Alive reports whether a replica lives: owner is its incarnation, or just the random part of it. Answers may be a second old, except
// that nobody is dead who was never asked about before: then it is looked up.
// While it is not sure, because the store was away or does not know that this replica itself lives, nobody is dead.
// Errors: [ErrStoreUnavailable].
func (m *Manager) Alive(ctx context.Context, owner string) (bool, error) {
	is := func(incarnation string) bool {
		return incarnation == owner || strings.HasSuffix(incarnation, "/"+owner)
	}
	if is(m.incarnation) {
		return true, nil
	}
	r := &m.replicas
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return false, fmt.Errorf("asking whether replica %s lives: %w: %w", owner, ErrStoreUnavailable, ctx.Err())
	}
	now := time.Now()
	isNew := r.askedAbout(owner) == r.looks && !slices.ContainsFunc(r.alive, is)
	if isNew || now.Sub(r.at) >= replicasFresh {
		m.look(context.WithoutCancel(ctx), r) // for all who wait, too
	}
	if r.err != nil {
		return false, fmt.Errorf("asking whether replica %s lives: %w", owner, r.err)
	}
	return time.Now().Before(r.doubted) || slices.ContainsFunc(r.alive, is), nil
}

// askedAbout is how many looks there had been when an owner was first asked about. The caller has the turn.
func (r *replicaList) askedAbout(owner string) int {
	first, known := r.asked[owner]
	switch {
	case known:
		return first
	case r.asked == nil || len(r.asked) >= maxAsked:
		r.asked = make(map[string]int)
	}
	r.asked[owner] = r.looks
	return r.looks
}

// look asks the store who lives. The caller has the turn.
func (m *Manager) look(ctx context.Context, r *replicaList) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	r.looks++
	r.alive, r.err = m.store.Replicas(ctx)
	r.at = time.Now()
	if r.err != nil || !slices.Contains(r.alive, m.incarnation) {
		r.doubted = r.at.Add(replicasDoubt)
	}
}
