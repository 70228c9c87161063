package cluster_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestRecoveredSessionIsServedAnewAtOnce(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.RequestRate = 0 }, func(t *testing.T, w *world) {
		m, other := w.audited(), w.audited()
		s, token := w.session(m.Manager)
		lease, err := m.Lease(t.Context(), token, use)
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Release()
		if err := m.Note(t.Context(), cluster.Note{ID: s.ID, Key: "k", Message: []byte("note")}); err != nil {
			t.Fatal(err)
		}
		r, err := m.ClaimRecovery(t.Context(), s.ID, lease.Session().Version, "w1", 10*time.Second)
		if err != nil || r.Busy != 0 || len(r.Notes) != 1 {
			t.Fatalf("ClaimRecovery: %+v, %v; want it with one note", r, err)
		}
		if r, err := other.ClaimRecovery(t.Context(), s.ID, s.Version, "w2", time.Second); err != nil || r.Busy != 10*time.Second {
			t.Errorf("ClaimRecovery by another replica: %+v, %v; want it busy for 10 s", r, err)
		}
		changed, err := m.Remap(t.Context(), r.Session, "w1", "127.0.0.1:9001", cluster.Activation{UpstreamSession: "y", Revision: "2025-11-25"})
		if err != nil || changed.Version <= s.Version || changed.Recoveries() != 1 || changed.UpstreamSession != "y" || changed.Endpoint != "127.0.0.1:9001" {
			t.Fatalf("Remap: %+v, %v", changed, err)
		}
		leases, _, _ := w.store.counted()
		next, err := m.Lease(t.Context(), token, use)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Release()
		for which, got := range map[string]cluster.Session{"the next lease": next.Session(), "the open lease's latest record": lease.Current()} {
			if got.Version != changed.Version || got.UpstreamSession != "y" || got.Endpoint != "127.0.0.1:9001" {
				t.Errorf("%s: %+v, want the new mapping", which, got)
			}
		}
		if lease.Session().UpstreamSession != "x" {
			t.Error("an open lease's own record has changed")
		}
		if again, _, _ := w.store.counted(); again != leases {
			t.Error("the store was asked again")
		}
		want := "recovered by replica: the upstream had lost it"
		if told := m.auditor.told(s.ID); !slices.Contains(told, want) {
			t.Errorf("audited: %q; want %q among them", told, want)
		}
		if _, err := other.Remap(t.Context(), s, "w2", "", cluster.Activation{UpstreamSession: "z"}); !errors.Is(err, cluster.ErrConflict) {
			t.Errorf("Remap by who was too late: %v, want ErrConflict", err)
		}
		if told := other.auditor.told(s.ID); len(told) > 0 {
			t.Errorf("audited of a Remap that failed: %q", told)
		}
	})
}

func TestRemapRefusesWhatIsTooLong(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, _ := w.session(m)
		for _, a := range []cluster.Activation{{UpstreamSession: strings.Repeat("x", 1025)}, {Revision: strings.Repeat("r", 65)}} {
			_, err := m.Remap(t.Context(), s, "w", "", a)
			if err == nil || !strings.Contains(err.Error(), s.ID.String()) || strings.Contains(err.Error(), "xx") {
				t.Errorf("%v; want a refusal that names the session, and no secret", err)
			}
		}
		if got, err := m.Get(t.Context(), s.ID); err != nil || got.Version != s.Version {
			t.Errorf("version %d, %v; want %d", got.Version, err, s.Version)
		}
	})
}

func TestErrorsOfNotesNameTheSession(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, _ := w.session(m)
		var err error
		for i := 0; err == nil && i <= cluster.MaxNotes; i++ {
			err = m.Note(t.Context(), cluster.Note{ID: s.ID, Key: strings.Repeat("k", i%64+1) + strings.Repeat("l", i/64), Message: []byte("secret")})
		}
		if !errors.Is(err, cluster.ErrNotesFull) || !strings.Contains(err.Error(), s.ID.String()) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want ErrNotesFull that names the session", err)
		}
	})
}
