package integration_test

import (
	"context"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// A failover that loses a recovery leaves one replica that knows of it. When another one then recovers the session, both serve with
// the upstream session that this one has made.
func TestARecoveryThatAFailoverLosesIsNotTakenForTheNextOne(t *testing.T) {
	for name, start := range startReplicated {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, primaryOf := start(t)
			options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), Partitions: 1}
			options.Config.StoreTimeout = time.Second
			newManager := func() *cluster.Manager {
				m, err := cluster.NewManager(openStore(t, at.URL(storeUser), options), options.Config, cluster.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return m
			}
			first, second := newManager(), newManager()
			s, token, err := first.Create(t.Context(), cluster.NewSession{Upstream: "u"})
			if err != nil {
				t.Fatal(err)
			}
			if s, err = first.Activate(t.Context(), s, cluster.Activation{UpstreamSession: "x"}); err != nil {
				t.Fatal(err)
			}
			served(t, first, token)
			if err := at.WaitReplicated(t.Context()); err != nil {
				t.Fatal(err)
			}
			primary, err := primaryOf(options.Prefix + ":{0}:lru")
			if err != nil {
				t.Fatal(err)
			}
			replicas := cutOff(t, at, primary)
			lost, err := first.Remap(t.Context(), s, "writer of lost", "", cluster.Activation{UpstreamSession: "lost"})
			if err != nil {
				t.Fatal(err)
			}
			primary.Kill()
			for _, r := range replicas {
				if err := r.Resume(); err != nil {
					t.Fatal(err)
				}
			}
			var kept cluster.Session
			eventually(t, recovery, func(ctx context.Context) (err error) {
				kept, err = second.Remap(ctx, s, "writer of kept", "", cluster.Activation{UpstreamSession: "kept"})
				return err
			})
			if kept.Version == lost.Version {
				t.Errorf("both recoveries have version %d", kept.Version)
			}
			eventually(t, recovery, func(context.Context) error {
				for _, m := range []*cluster.Manager{first, second} {
					if served(t, m, token) != "kept" {
						return errNotYet
					}
				}
				return nil
			})
			checkViolations(t, at, options)
		})
	}
}

// served is the upstream session that a replica serves the next request with; empty when it does not.
func served(t *testing.T, m *cluster.Manager, token cluster.Token) string {
	t.Helper()
	l, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u"})
	if err != nil {
		t.Log(err)
		return ""
	}
	defer l.Release()
	return l.Session().UpstreamSession
}
