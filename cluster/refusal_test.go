package cluster_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// fullStore refuses creations and ends a session each time.
type fullStore struct {
	cluster.Store
	victim cluster.ID
}

func (f fullStore) Create(ctx context.Context, _ cluster.Creation) (cluster.Created, error) {
	ended, err := f.Terminate(ctx, f.victim, cluster.StatusEvicted)
	refusal := &cluster.LimitError{Limit: "max_sessions", RetryAfter: time.Second, Err: cluster.ErrCapacity}
	return cluster.Created{Ended: []cluster.Session{ended}}, errors.Join(err, refusal)
}

func TestSessionEndedByARefusedCreationStopsAtOnce(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.RequestRate = 0 }, func(t *testing.T, w *world) {
		other, _ := w.replica()
		s, token := w.session(other)
		m, err := cluster.NewManager(fullStore{w.store, s.ID}, w.cfg, cluster.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w.serve(m, token)
		if _, _, err := m.Create(t.Context(), cluster.NewSession{Upstream: "u"}); !errors.Is(err, cluster.ErrCapacity) {
			t.Fatalf("Create: %v, want ErrCapacity", err)
		}
		if _, err := m.Lease(t.Context(), token, use); !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("the evicted session: %v, want ErrNotFound at once", err)
		}
	})
}
