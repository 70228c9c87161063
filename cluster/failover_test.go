package cluster_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// lose does what changes a session's record, and takes it back, as a failover of the store does to the last writes.
func (w *world) lose(id cluster.ID, change func()) {
	w.t.Helper()
	kept := make(map[string]map[string]string)
	for _, key := range w.server.Keys() {
		if !strings.HasSuffix(key, ":session:"+id.String()) && !strings.HasSuffix(key, ":more:"+id.String()) {
			continue
		}
		kept[key] = make(map[string]string)
		fields, err := w.server.HKeys(key)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, field := range fields {
			kept[key][field] = w.server.HGet(key, field)
		}
	}
	change()
	for key, fields := range kept {
		w.server.Del(key)
		for field, value := range fields {
			w.server.HSet(key, field, value)
		}
	}
}

// recovers gives a session another upstream session at a replica that knows the record s, and returns the changed one.
func (w *world) recovers(m *cluster.Manager, s cluster.Session, upstreamSession string) cluster.Session {
	w.t.Helper()
	r, err := m.ClaimRecovery(w.t.Context(), s.ID, s.Version, "claim by "+m.Incarnation(), w.cfg.StoreTimeout)
	if err != nil || r.Busy > 0 {
		w.t.Fatalf("ClaimRecovery for %s: busy for %v, %v", upstreamSession, r.Busy, err)
	}
	changed, err := m.Remap(w.t.Context(), r.Session, "writer of "+upstreamSession, "", cluster.Activation{UpstreamSession: upstreamSession, Revision: s.Revision})
	if err != nil {
		w.t.Fatalf("Remap to %s: %v", upstreamSession, err)
	}
	return changed
}

// served is the upstream session that a replica serves the next request with.
func (w *world) served(m *cluster.Manager, token cluster.Token) string {
	w.t.Helper()
	l, err := m.Lease(w.t.Context(), token, use)
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Release()
	return l.Session().UpstreamSession
}

// A store that fails over may lose a recovery. The next one, by whichever replica, is another change: who knows the lost one is told.
func TestARecoveryIsNotTakenForOneThatTheStoreHasLost(t *testing.T) {
	for name, between := range map[string]func(*world, *cluster.Manager, cluster.Token){
		"by a replica that had not asked since": func(*world, *cluster.Manager, cluster.Token) {},
		"by a replica that had": func(w *world, m *cluster.Manager, token cluster.Token) {
			w.pass(w.cfg.Lease)
			w.served(m, token)
		},
		"and the server that took over has a slow clock": func(w *world, _ *cluster.Manager, _ cluster.Token) {
			w.server.SetTime(time.Now().Add(-time.Minute))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(c *cluster.Config) { c.RequestRate = 0 }, func(t *testing.T, w *world) {
				m, _ := w.replica()
				other, _ := w.replica()
				s, token := w.session(m)
				w.served(m, token)
				var lost cluster.Session
				w.lose(s.ID, func() { lost = w.recovers(m, s, "lost") })
				if got := w.served(m, token); got != "lost" {
					t.Fatalf("before it has asked, the replica serves with %q, want lost", got)
				}
				between(w, m, token)

				w.pass(w.cfg.ReportInterval) // a failover takes time
				kept := w.recovers(other, s, "kept")
				if kept.Version == lost.Version {
					t.Errorf("two changes have made version %d", kept.Version)
				}
				w.pass(w.cfg.Lease)
				for name, at := range map[string]*cluster.Manager{"that had made the lost one": m, "that made the other": other} {
					if got := w.served(at, token); got != "kept" {
						t.Errorf("the replica %s serves with %q, want kept", name, got)
					}
				}
				_, errClaim := m.ClaimRecovery(t.Context(), s.ID, lost.Version, "w", w.cfg.StoreTimeout)
				_, errRemap := m.Remap(t.Context(), lost, "w", "", cluster.Activation{UpstreamSession: "third", Revision: s.Revision})
				if !errors.Is(errClaim, cluster.ErrConflict) || !errors.Is(errRemap, cluster.ErrConflict) {
					t.Errorf("who knows the lost one may recover the session: claim %v, remap %v; want ErrConflict", errClaim, errRemap)
				}
			})
		})
	}
}

// Between a failover and the next recovery, too, all replicas serve with the upstream session that the store names.
func TestAReplicaFollowsAStoreThatHasLostARecovery(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		w.served(m, token)
		w.lose(s.ID, func() { w.recovers(m, s, "lost") })
		w.pass(w.cfg.Lease)
		if got := w.served(m, token); got != "x" {
			t.Errorf("it serves with %q, want x, as the store has it", got)
		}
		told := w.store.told
		w.pass(w.cfg.Lease)
		w.served(m, token)
		if w.store.told != told {
			t.Error("it was told once more what it knows")
		}
	})
}

// A replica that has made a recovery that is lost, and then another one, serves with that.
func TestAReplicaMakesALostRecoveryAgain(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		w.served(m, token)
		w.lose(s.ID, func() { w.recovers(m, s, "lost") })
		w.pass(w.cfg.ReportInterval)
		w.recovers(m, s, "kept")
		if got := w.served(m, token); got != "kept" {
			t.Errorf("it serves with %q, want kept", got)
		}
	})
}

// The count of recoveries goes on behind what a program of before has written, which has counted alone, and ends at its bound.
func TestAnyVersionIsFollowedByALaterOne(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		for before, want := range map[int64]int{
			2: 1, 5: 4, 999: 996, 900_000_000_000_997: 996, 900_000_000_000_998: 996,
			time.Now().UnixMilli()*1000 + 4: 3, time.Now().Add(time.Hour).UnixMilli()*1000 + 4: 3,
		} {
			s, token := w.session(m)
			for _, key := range w.server.Keys() {
				if strings.HasSuffix(key, ":session:"+s.ID.String()) {
					w.server.HSet(key, "v", strconv.FormatInt(before, 10))
				}
			}
			s.Version = before
			changed := w.recovers(m, s, "y")
			if got := w.served(m, token); changed.Version <= before || changed.Recoveries() != want || got != "y" {
				t.Errorf("after version %d comes %d, of recovery %d to %q; want a later one, of recovery %d to y", before, changed.Version, changed.Recoveries(), got, want)
			}
			ended, err := m.Terminate(t.Context(), s.ID, cluster.StatusClosed)
			if err != nil || ended.Version != changed.Version+1 || ended.Recoveries() != want {
				t.Errorf("after version %d the end has %d, of recovery %d, %v; want the next one, of recovery %d", changed.Version, ended.Version, ended.Recoveries(), err, want)
			}
		}
	})
}

func TestRecoveriesAreCountedByTheVersion(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := now.UnixMilli() * 1000
	for _, tt := range []struct {
		session cluster.Session
		want    int
	}{
		{cluster.Session{Version: 1}, 0},
		{cluster.Session{Version: 2, Status: cluster.StatusFailed, EndedAt: now}, 0}, // never active
		{cluster.Session{Version: 2, Status: cluster.StatusActive}, 0},
		{cluster.Session{Version: at + 3, Status: cluster.StatusActive}, 1},
		{cluster.Session{Version: at + 5, Status: cluster.StatusClosed, EndedAt: now}, 2},
		{cluster.Session{Version: at + 5, Status: cluster.StatusExpired, DeadlineAt: now}, 3}, // waits for cleanup
		{cluster.Session{Version: 5, Status: cluster.StatusActive}, 3},                        // of a replica of an earlier program
		{cluster.Session{Version: at + 999, Status: cluster.StatusClosed, EndedAt: now}, 996},
	} {
		if got := tt.session.Recoveries(); got != tt.want {
			t.Errorf("version %d, %s: %d recoveries, want %d", tt.session.Version, tt.session.Status, got, tt.want)
		}
	}
}
