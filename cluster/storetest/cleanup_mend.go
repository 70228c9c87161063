package storetest

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var mendTests = map[string]func(*testing.T, *suite){
	"a walk finds nothing where nothing is wrong":       walkFindsNothing,
	"a walk refuses cursors that it has not made":       walkRefusesCursors,
	"a walk harms nobody who comes or goes in its time": walkHarmsNobody,
}

var timedMendTests = map[string]func(*testing.T, *suite){
	"a walk forgets requests in flight of the dead": walkForgetsDead,
	"a walk leaves alone what is past its end":      walkLeavesDue,
}

// walk makes one walk through the store.
func (s *suite) walk(who cluster.Cleanup, limit int) ([]cluster.Repair, error) {
	s.t.Helper()
	var repairs []cluster.Repair
	call := cluster.MendCall{Cleanup: who, Limit: limit}
	for range 100_000 {
		mended, err := s.store.Mend(s.t.Context(), call)
		repairs = append(repairs, mended.Repairs...)
		if err != nil || mended.Next == "" {
			return repairs, err
		}
		if mended.Next == call.Cursor && len(mended.Repairs) == 0 {
			s.t.Fatalf("the walk does not get on from %q", call.Cursor)
		}
		call.Cursor = mended.Next
	}
	s.t.Fatal("the walk has no end")
	return nil, nil
}

func (s *suite) wantRepairs(when string, want ...cluster.Repair) {
	s.t.Helper()
	repairs, err := s.walk(operator(0), 7)
	if err != nil {
		s.t.Fatalf("%s: %v", when, err)
	}
	count := func(all []cluster.Repair) map[cluster.Repair]int {
		n := make(map[cluster.Repair]int)
		for _, r := range all {
			n[r]++
		}
		return n
	}
	if diff := gocmp.Diff(count(want), count(repairs)); diff != "" {
		s.t.Errorf("%s: repairs (-want +got):\n%s", when, diff)
	}
}

func walkFindsNothing(t *testing.T, s *suite) {
	s.open(nil)
	s.wantRepairs("empty")
	for i := range 30 {
		made := s.active()
		s.mustAppend(made.ID, "s", 1, "one")
		s.record(made.ID, named("ab")...)
		s.inFlight(made.ID, "a/1", "c1")
		other := s.mustCreateFor(cluster.Principal("p" + strconv.Itoa(i%7)))
		if i%3 == 0 {
			s.terminate(made.ID)
			s.terminate(other.ID)
		}
	}
	before := s.stats()
	s.wantRepairs("with sessions of all kinds")
	if diff := gocmp.Diff(before, s.stats()); diff != "" {
		t.Errorf("the walk changed counts:\n%s", diff)
	}
}

func walkRefusesCursors(t *testing.T, s *suite) {
	s.open(nil)
	id := s.active().ID.String()
	for _, cursor := range []string{
		"x", "|", "live.0." + id, "keys", "keys|", "keys||", "keys||x", "keys||-1", "keys|0", "keys||0|", "keys||99999999999999999999",
		"index", "index|", "index|0", "index|0|0|0", "index|0|0|x|" + id, "index|0|3|0|" + id, "index|0|-1|0|" + id, "index|-1|0|0|" + id,
		"index|9999|0|0|" + id, "index|0|0|0|", "index|0|0|0|x", "index|0|0|0|" + id + "|", "index|0|0|1.5|" + id, "index|0|0|99999999999999999999|" + id,
		"counts", "counts|", "counts|x", "counts|-1", "counts|9999", "counts|0|", " keys||0",
	} {
		mended, err := s.store.Mend(t.Context(), cluster.MendCall{Cursor: cursor, Limit: 10})
		if !errors.Is(err, cluster.ErrInvalidCursor) {
			t.Errorf("cursor %q: %+v, %v; want ErrInvalidCursor", cursor, mended, err)
		}
	}
}

// walkHarmsNobody: sessions are created, used and ended all the time. No walk finds anything wrong, and who lives goes on.
func walkHarmsNobody(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions, c.RequestRate = 10_000, 0 })
	if err := s.store.Beat(t.Context(), "a/1"); err != nil {
		t.Fatal(err)
	}
	const clients, rounds = 6, 40
	var load sync.WaitGroup
	for client := range clients {
		principal := cluster.Principal("p" + strconv.Itoa(client%2))
		load.Go(func() {
			for round := range rounds {
				if err := s.oneLife(principal, round%2 == 0); err != nil {
					t.Errorf("a client: %v", err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { load.Wait(); close(done) }()
	walks := 0
	for busy := true; busy; walks++ {
		select {
		case <-done:
			busy = false
		default:
		}
		repairs, err := s.walk(leader(int64(walks)), 5)
		if err != nil || len(repairs) > 0 {
			t.Fatalf("walk %d: %v, %v; want nothing", walks, repairs, err)
		}
	}
	if got := s.stats().ByStatus[cluster.StatusActive]; got != clients*rounds/2 {
		t.Errorf("%d sessions live after %d walks, want %d", got, walks, clients*rounds/2)
	}
}

// oneLife is what happens to a session: it is made and used, and ends or stays.
func (s *suite) oneLife(principal cluster.Principal, stays bool) error {
	ctx := s.t.Context()
	created, err := s.store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{Upstream: "weather", Principal: principal, Initialize: []byte("{}")}})
	if err != nil {
		return err
	}
	id := created.Session.ID
	if _, err := s.store.Update(ctx, change(created.Session, "w")); err != nil {
		return err
	}
	report := cluster.Report{ID: id, Started: []cluster.PendingRequest{{Key: "c1", Owner: "a/1", Age: time.Second}}}
	if r := s.store.Report(ctx, []cluster.Report{report}); r[0].Err != nil {
		return r[0].Err
	}
	if _, err := s.store.AppendEvents(ctx, cluster.EventAppend{ID: id, Stream: "s", First: 1, Events: [][]byte{[]byte("e")}}); err != nil {
		return err
	}
	if stays {
		return nil
	}
	if _, err := s.store.Terminate(ctx, id, cluster.StatusClosed); err != nil {
		return err
	}
	_, err = s.store.Purge(ctx, operator(1<<50), []cluster.ID{id})
	return err
}

func walkForgetsDead(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.inFlight(made.ID, "alive/1", "c1")
	s.inFlight(made.ID, "dead/1", "c2", "c3")
	s.b.Advance(28*time.Second - time.Millisecond) // they are a second old when they are told
	if err := s.store.Beat(t.Context(), "alive/1"); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Beat(t.Context(), "dead/2"); err != nil { // the same replica, run anew
		t.Fatal(err)
	}
	s.b.Advance(time.Second)
	s.wantRepairs("they may be young")
	s.b.Advance(time.Millisecond)
	s.inFlight(made.ID, "dead/1", "c4") // reported just before its end
	abandoned := cluster.Repair{ID: made.ID, Kind: cluster.RepairPendingAbandoned}
	s.wantRepairs("30 s old", abandoned, abandoned)
	if got := s.get(made.ID).Pending; got != 2 {
		t.Errorf("%d requests in flight, want the young one and the living one", got)
	}
	s.wantRepairs("again")
	s.b.Advance(31 * time.Second)
	s.wantRepairs("nobody has said that it lives: nothing is known")
	if err := s.store.Beat(t.Context(), "alive/2"); err != nil {
		t.Fatal(err)
	}
	s.wantRepairs("all are dead", abandoned, abandoned)
}

// walkLeavesDue: a session past its end, its place and its record are the sweep's.
func walkLeavesDue(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	gone := s.active()
	s.terminate(gone.ID)
	s.b.Advance(idle() + limits().Retention)
	s.wantRepairs("past its end its place is nobody's", cluster.Repair{ID: made.ID, Kind: cluster.RepairPlaceWrong})
	s.wantRepairs("again")
	swept, err := s.store.Sweep(t.Context(), sweep)
	if err != nil || len(swept.Expired) != 1 || len(swept.Purged) != 1 {
		t.Errorf("the sweep afterwards: %+v, %v; want one of each", swept, err)
	}
}
