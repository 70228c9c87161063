package cluster

import (
	"context"
	"fmt"
	"time"
)

// ClaimRecovery asks for the right to give session id, of which the caller knows the version, a new upstream session, for the
// time d; see [RecoveryStore]. writer is random, and the same for [Manager.Remap].
//
// Errors: [ErrNotFound], [ErrIllegalTransition] when the session is not active, [ErrConflict] when its mapping has changed:
// another replica has recovered it; [ErrStoreUnavailable].
func (m *Manager) ClaimRecovery(ctx context.Context, id ID, version int64, writer string, d time.Duration) (Recovery, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	r, err := m.store.ClaimRecovery(ctx, RecoveryClaim{ID: id, ExpectedVersion: version, Writer: writer, For: d})
	if err != nil {
		return Recovery{}, m.failed("recovering", id, err)
	}
	return r, nil
}

// Remap records the new upstream session of s, a session that this replica has claimed to recover as writer. endpoint is where
// it is; empty: where the old one was. s is the record that ClaimRecovery returned; the changed one is returned. What this
// replica holds of the session is of the new record at once, other replicas hear of it with their next report. Calling it
// again with the same arguments is safe.
//
// Errors: [ErrNotFound], [ErrIllegalTransition] when the session has ended, [ErrConflict] when another replica changed it
// first, [ErrStoreUnavailable].
func (m *Manager) Remap(ctx context.Context, s Session, writer, endpoint string, a Activation) (Session, error) {
	if len(a.UpstreamSession) > maxUpstreamSessionLen || len(a.Revision) > maxNameLen {
		return Session{}, fmt.Errorf("remapping session %s: the upstream's session id has %d bytes, its protocol revision %d, more than %d or %d",
			s.ID, len(a.UpstreamSession), len(a.Revision), maxUpstreamSessionLen, maxNameLen)
	}
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	sent := time.Now()
	changed, err := m.store.Update(ctx, Change{Activation: a, ID: s.ID, Endpoint: endpoint, ExpectedVersion: s.Version, Writer: writer})
	if err != nil {
		return Session{}, m.failed("remapping", s.ID, err)
	}
	if h := m.holding(s.ID); h != nil {
		h.remapped(changed, sent)
	}
	m.trail.Record(Audit{
		At: changed.LastActivityAt, Action: ActionRecovered, Session: s.ID, Principal: changed.Principal, Upstream: changed.Upstream,
		Actor: ActorReplica, Reason: "the upstream had lost it",
	})
	return changed, nil
}

// remapped takes in a record that this replica has changed, by a call sent at the moment sent.
func (h *holding) remapped(s Session, sent time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.learn(s, sent)
}

// Note keeps a client's message that a new upstream session must be told again, or forgets it; see [RecoveryStore]. Errors:
// [ErrNotFound], [ErrNotesFull], [ErrStoreUnavailable].
func (m *Manager) Note(ctx context.Context, n Note) error {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	if err := m.store.Note(ctx, n); err != nil {
		return m.failed("noting a message of", n.ID, err)
	}
	return nil
}
