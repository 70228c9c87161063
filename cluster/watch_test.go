package cluster_test

import (
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// watched returns a lease that only watches a fresh session; what it came from is released.
func (w *world) watched(m *cluster.Manager) (cluster.Session, cluster.Token, *cluster.Lease) {
	w.t.Helper()
	s, token := w.session(m)
	l, err := m.Lease(w.t.Context(), token, use)
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Release()
	return s, token, l.Watch()
}

func hasEnded(l *cluster.Lease) bool {
	select {
	case <-l.Ended():
		return true
	default:
		return false
	}
}

func TestWatchHearsOfAnEndElsewhere(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		other, _ := w.replica()
		s, _, watch := w.watched(m)
		defer watch.Release()
		w.pass(time.Minute)
		if hasEnded(watch) || m.Held() != 1 {
			t.Fatalf("a watched session: ended %v, %d held; want one that lives", hasEnded(watch), m.Held())
		}
		if _, err := other.Terminate(t.Context(), s.ID, cluster.StatusTerminated); err != nil {
			t.Fatal(err)
		}
		w.pass(10*time.Second + w.cfg.ReportInterval)
		if !hasEnded(watch) {
			t.Error("ten seconds and a report interval after the end, the watch has not heard of it")
		}
	})
}

func TestWatchDoesNotKeepItsSessionFromIdlingOut(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.IdleTimeout = 10 * time.Second }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, _, watch := w.watched(m)
		defer watch.Release()
		w.pass(10 * time.Second)
		if hasEnded(watch) {
			t.Error("ended before its end")
		}
		w.pass(w.cfg.ReportSlack + 10*time.Second)
		if !hasEnded(watch) {
			t.Error("a watch has kept its session from idling out")
		}
	})
}

func TestTouchOfAWatchIsActivity(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.IdleTimeout = 10 * time.Second }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, _, watch := w.watched(m)
		defer watch.Release()
		for range 6 {
			w.pass(9 * time.Second)
			watch.Touch()
		}
		if hasEnded(watch) {
			t.Error("ended although messages passed")
		}
	})
}

func TestReleasedWatchLeavesNothingHeld(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, _, watch := w.watched(m)
		watch.Release()
		watch.Release()
		w.pass(w.cfg.OutageGrace + 2*time.Second)
		if m.Held() != 0 {
			t.Errorf("%d sessions held after the watch was released", m.Held())
		}
	})
}

func TestCurrentIsTheRecordThatAnotherReplicaHasChanged(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token, watch := w.watched(m)
		defer watch.Release()
		changed, err := w.store.Update(t.Context(), cluster.Change{
			ID: s.ID, ExpectedVersion: s.Version, Writer: "other", Activation: cluster.Activation{UpstreamSession: "y", Revision: "2025-11-25"},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.pass(w.cfg.Lease)
		w.serve(m, token)
		if got := watch.Current(); got.Version != changed.Version || got.UpstreamSession != "y" {
			t.Errorf("Current: version %d of %q; want %d of y", got.Version, got.UpstreamSession, changed.Version)
		}
		if got := watch.Session(); got.Version != s.Version {
			t.Errorf("Session: version %d, want the %d that it was granted with", got.Version, s.Version)
		}
	})
}
