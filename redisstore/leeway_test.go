package redisstore_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cluster/storetest"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestContractAfterOutages(t *testing.T) {
	t.Parallel()
	var server *miniredis.Miniredis
	storetest.RunOutages(t, storetest.OutageBackend{
		Open: func(t *testing.T, cfg cluster.Config) cluster.Store {
			t.Helper()
			client, s := bubbleServer(t)
			server = s
			store, err := redisstore.New(client, redisstore.Options{Config: cfg})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = store.Close() })
			return store
		},
		SetAway: func(isAway bool) {
			server.SetError("")
			if isAway {
				server.SetError("LOADING Redis is loading the dataset in memory")
			}
		},
	})
}

// A server that hangs goes on with what was sent to it before, when nobody waits for that any more.
func TestSweepThatTheServerRunsLateEndsNobodyWhoWasNotDueBefore(t *testing.T) {
	t.Parallel()
	inFlaky(t, func(t *testing.T, f *flaky) {
		active := func() (cluster.Session, cluster.LeaseCall) {
			creation := newCreation(t)
			created, err := f.Create(t.Context(), creation)
			if err != nil {
				t.Fatal(err)
			}
			s, err := f.Update(t.Context(), cluster.Change{ID: created.Session.ID, ExpectedVersion: 1, Writer: "w"})
			if err != nil {
				t.Fatal(err)
			}
			return s, cluster.LeaseCall{ID: s.ID, Digest: creation.Token.Digest(), Upstream: "u", Need: 1}
		}
		idle := f.cfg.IdleTimeout + f.cfg.ReportSlack
		due, _ := active()
		<-time.After(5 * time.Second)
		busy, call := active()
		<-time.After(idle - 3*time.Second) // one is due, the other is not
		if swept, err := f.Sweep(t.Context(), cluster.SweepCall{Limit: 10}); err != nil || len(swept.Expired) != 1 || swept.Expired[0].ID != due.ID {
			t.Fatalf("swept %v, %v; want the one that is due", swept.Expired, err)
		}
		// The script is known by now, so that the second request is the sweep itself.
		f.hold(func(p []byte) bool { return bytes.Contains(p, []byte(":fence")) })
		if _, err := f.Sweep(t.Context(), cluster.SweepCall{Limit: 10}); err == nil || len(f.held) != 1 {
			t.Fatalf("the sweep was not held: %v", err)
		}
		f.isSilent.Store(true)
		for range 10 {
			_ = f.Beat(t.Context(), "a/1")
			<-time.After(time.Second)
		}
		f.isSilent.Store(false)
		f.deliver()
		_ = f.Beat(t.Context(), "a/1")
		<-time.After(flakyTimeout + 500*time.Millisecond)
		f.wantThere("when it is back")
		if _, err := f.Lease(t.Context(), call); err != nil {
			t.Errorf("session %s after the late sweep: %v", busy.ID, err)
		}
	})
}
