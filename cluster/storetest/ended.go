package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// orderedEndTests need one exact order of eviction.
var orderedEndTests = map[string]func(*testing.T, *suite){
	"create tells what it has evicted":                   createTellsEvicted,
	"create tells what it has evicted though it refuses": createTellsWhenItRefuses,
}

var timedEndTests = map[string]func(*testing.T, *suite){
	"create tells what it has expired": createTellsExpired,
	"sweep tells what it has expired":  sweepTells,
	"nothing serves what is due":       dueServesNothing,
}

// wantEnded fails the test unless just these sessions are told to have ended, as they are stored from then on.
func (s *suite) wantEnded(told []cluster.Session, status cluster.Status, want ...known) {
	s.t.Helper()
	stored := make([]cluster.Session, 0, len(want))
	for _, k := range want {
		session := s.get(k.ID)
		if session.Status != status || session.Version != k.Version+1 || session.EndedAt.Before(k.LastActivityAt) || session.EndedAt.IsZero() ||
			session.UpstreamSession != k.UpstreamSession {
			s.t.Errorf("session %s is stored as %+v; want it %s by one change", k.ID, session, status)
		}
		stored = append(stored, session)
	}
	byID := func(a, b cluster.Session) int { return slices.Compare(a.ID[:], b.ID[:]) }
	slices.SortFunc(stored, byID)
	told = slices.SortedFunc(slices.Values(told), byID)
	if diff := cmp.Diff(stored, told, cmp.Transformer("none", func(all []cluster.Session) []cluster.Session { return append([]cluster.Session{}, all...) })); diff != "" {
		s.t.Errorf("sessions ended (-stored +told):\n%s", diff)
	}
}

func createTellsEvicted(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 3 })
	first := s.active()
	s.settle()
	s.active()
	s.settle()
	last := s.active()
	created, err := s.store.Create(t.Context(), creation(s.token()))
	if err != nil {
		t.Fatal(err)
	}
	s.wantEnded(created.Ended, cluster.StatusEvicted, first)
	again, err := s.store.Create(t.Context(), creation(created.Token))
	if err != nil || len(again.Ended) > 0 {
		t.Errorf("create repeated: %+v ended, %v; want nothing", again.Ended, err)
	}
	s.terminate(last.ID)
	if created, err = s.store.Create(t.Context(), creation(s.token())); err != nil || len(created.Ended) > 0 {
		t.Errorf("create below the cap: %+v ended, %v; want nothing", created.Ended, err)
	}
}

func createTellsWhenItRefuses(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 6 })
	made := make([]known, 0, 6)
	for range 6 {
		made = append(made, s.active())
		s.settle()
	}
	s.reopen(func(c *cluster.Config) { c.MaxSessions = 3 })
	for round := range 2 {
		var created cluster.Created
		var err error
		if round == 0 {
			created, err = s.store.Create(t.Context(), creation(s.token()))
			s.wantRefusal(err, "max_sessions", cluster.ErrCapacity)
		} else if created, err = s.createFor(""); err != nil {
			t.Fatal(err)
		}
		s.wantEnded(created.Ended, cluster.StatusEvicted, made[2*round], made[2*round+1])
	}
}

func createTellsExpired(t *testing.T, s *suite) {
	s.open(nil)
	first := s.active()
	s.b.Advance(time.Second)
	second := s.active()
	s.b.Advance(time.Second)
	third := s.active()
	s.b.Advance(idle())
	created, err := s.createFor("")
	if err != nil {
		t.Fatal(err)
	}
	s.wantEnded(created.Ended, cluster.StatusExpired, first, second)
	if created, err = s.store.Create(t.Context(), creation(s.token())); err != nil {
		t.Fatal(err)
	}
	s.wantEnded(created.Ended, cluster.StatusExpired, third)
}

func sweepTells(t *testing.T, s *suite) {
	s.open(nil)
	token := s.token()
	due := []known{s.active(), s.active(), s.create(), {Session: s.bare(token), token: token}}
	gone := s.active()
	s.terminate(gone.ID)
	s.b.Advance(idle())
	swept, err := s.store.Sweep(t.Context(), sweep)
	if err != nil || len(swept.Purged) != 1 || swept.Purged[0] != gone.ID || swept.More {
		t.Errorf("%v purged, more: %v, %v; want 1 and no more", swept.Purged, swept.More, err)
	}
	s.wantEnded(swept.Expired, cluster.StatusExpired, due...)
	if swept, err = s.store.Sweep(t.Context(), sweep); err != nil || len(swept.Expired)+len(swept.Purged) > 0 {
		t.Errorf("second sweep: %+v, %v; want nothing", swept, err)
	}
}

// dueServesNothing: what is past its end is over for everybody, though nobody has swept it yet.
func dueServesNothing(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	if err := s.appendEvents(made.ID, "s", 1, "one"); err != nil {
		t.Fatal(err)
	}
	s.b.Advance(idle())
	if err := s.appendEvents(made.ID, "s", 2, "two"); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("events of a session past its end: %v, want ErrNotFound", err)
	}
	if page := s.readEvents(made.ID, "s", 0, 10); !errors.Is(page.Err, cluster.ErrNotFound) {
		t.Errorf("reading events of a session past its end: %v, want ErrNotFound", page.Err)
	}
	if _, err := s.leasePending(made, 1); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("lease of a session past its end: %v, want ErrNotFound", err)
	}
	if err := s.store.AppendFrames(t.Context(), made.ID, []cluster.Frame{{Direction: cluster.FromClient}}); err != nil {
		t.Errorf("frames are of ended sessions, too: %v", err)
	}
}
