package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var cleanupTests = map[string]func(*testing.T, *suite){
	"the fence refuses older epochs":              fenceRefuses,
	"only a leader raises the fence":              fenceRisesByLeaders,
	"end ends those that meet the conditions":     endMeets,
	"end tells whom it has ended, once":           endTells,
	"end gives places back":                       endGivesPlacesBack,
	"end takes any number of sessions":            endMany,
	"end refuses statuses that end nothing":       endRefusesStatuses,
	"purge removes ended sessions and all theirs": purgeRemoves,
}

var timedCleanupTests = map[string]func(*testing.T, *suite){
	"end looks at idle time and age":              endLooksAtTimes,
	"end of a session past its end is its expiry": endOfDue,
	"stats tell how far behind the cleanup is":    statsLag,
	"replicas live as long as they say so":        replicasLive,
}

// leader is who cleans up under an epoch.
func leader(epoch int64) cluster.Cleanup { return cluster.Cleanup{Epoch: epoch, Leader: true} }

// operator cleans up under an epoch that is not its own.
func operator(epoch int64) cluster.Cleanup { return cluster.Cleanup{Epoch: epoch} }

func idsOf(all ...known) []cluster.ID {
	ids := make([]cluster.ID, len(all))
	for i, k := range all {
		ids[i] = k.ID
	}
	return ids
}

func (s *suite) end(c cluster.EndCall, all ...known) []cluster.Session {
	s.t.Helper()
	c.IDs = idsOf(all...)
	if c.Status == "" {
		c.Status = cluster.StatusTerminated
	}
	ended, err := s.store.End(s.t.Context(), c)
	if err != nil {
		s.t.Fatalf("End: %v", err)
	}
	return ended
}

func (s *suite) wantFenced(call string, err error, fence int64) {
	s.t.Helper()
	fenced, ok := errors.AsType[*cluster.FencedError](err)
	if !ok || !errors.Is(err, cluster.ErrFenced) || fenced.Epoch != fence {
		s.t.Errorf("%s: %v, want a FencedError of epoch %d", call, err, fence)
	}
}

// cleanups are the calls that clean up, by name. Each fails the way the store does.
func (s *suite) cleanups(live []cluster.ID) map[string]func(cluster.Cleanup) error {
	ctx := s.t.Context()
	return map[string]func(cluster.Cleanup) error{
		"Sweep": func(who cluster.Cleanup) error {
			swept, err := s.store.Sweep(ctx, cluster.SweepCall{Cleanup: who, Limit: 10})
			if err != nil && len(swept.Expired)+len(swept.Purged) > 0 {
				s.t.Errorf("a refused sweep did something: %+v", swept)
			}
			return err
		},
		"End": func(who cluster.Cleanup) error {
			done, err := s.store.End(ctx, cluster.EndCall{Cleanup: who, IDs: live, Status: cluster.StatusClosed, Was: cluster.StatusInitializing})
			if err != nil && len(done) > 0 {
				s.t.Errorf("a refused End ended %d sessions", len(done))
			}
			return err
		},
		"Purge": func(who cluster.Cleanup) error {
			_, err := s.store.Purge(ctx, who, live) // they live, so nothing is purged
			return err
		},
		"Mend": func(who cluster.Cleanup) error {
			_, err := s.walk(who, 10)
			return err
		},
	}
}

// everywhere makes a session in every slice of the store.
func (s *suite) everywhere() []cluster.ID {
	s.t.Helper()
	if s.b.Partitions <= 1 {
		return []cluster.ID{s.active().ID}
	}
	var all []cluster.ID
	for range 12 * s.b.Partitions { // one in 60,000 leaves one of 16 out
		all = append(all, s.active().ID)
	}
	return all
}

func fenceRefuses(t *testing.T, s *suite) {
	s.open(nil)
	live := s.everywhere()
	calls := s.cleanups(live)
	if err := calls["Sweep"](leader(10)); err != nil {
		t.Fatalf("the first leader: %v", err)
	}
	for name, call := range calls {
		s.wantFenced(name+" of an older leader", call(leader(9)), 10)
		s.wantFenced(name+" of an older operator", call(operator(9)), 10)
		s.wantFenced(name+" without an epoch", call(operator(0)), 10)
		for _, who := range []cluster.Cleanup{leader(10), operator(10), operator(11)} {
			if err := call(who); err != nil {
				t.Errorf("%s by %+v: %v", name, who, err)
			}
		}
	}
	old := leader(9)
	if ended, err := s.store.End(t.Context(), cluster.EndCall{Cleanup: old, IDs: live, Status: cluster.StatusClosed}); err == nil || len(ended) > 0 {
		t.Errorf("an older leader ended %d sessions, %v", len(ended), err)
	}
	for _, id := range live {
		if got := s.get(id); got.Status != cluster.StatusActive {
			t.Fatalf("a session is %s after refused calls", got.Status)
		}
	}
}

// fenceRisesByLeaders: each call raises the fence, never lowers it, and only for a leader.
func fenceRisesByLeaders(t *testing.T, s *suite) {
	s.open(nil)
	live := s.everywhere()
	calls := s.cleanups(live)
	epoch := int64(1_732_312_345_678) // what epochs look like
	for name, call := range calls {
		if err := call(operator(epoch + 5)); err != nil {
			t.Fatalf("%s by an operator: %v", name, err)
		}
		if err := call(leader(epoch)); err != nil {
			t.Errorf("%s by a leader, after an operator with a later epoch: %v", name, err)
		}
		for other, refused := range calls {
			s.wantFenced(other+" after "+name, refused(leader(epoch-1)), epoch)
		}
		if err := call(operator(epoch)); err != nil {
			t.Errorf("%s by an operator with the leader's epoch: %v", name, err)
		}
		s.wantFenced("a refused call has lowered the fence: "+name, call(leader(epoch-2)), epoch)
		epoch += 10
	}
}

func endMeets(t *testing.T, s *suite) {
	s.open(nil)
	for _, c := range []struct {
		name string
		call cluster.EndCall
		want bool // of an active session with a request in flight
	}{
		{"no condition", cluster.EndCall{}, true},
		{"of its status", cluster.EndCall{Was: cluster.StatusActive}, true},
		{"of another status", cluster.EndCall{Was: cluster.StatusInitializing}, false},
		{"of an ended status", cluster.EndCall{Was: cluster.StatusClosed}, false},
		{"idle for an hour", cluster.EndCall{IdleFor: time.Hour}, false},
		{"older than an hour", cluster.EndCall{OlderThan: time.Hour}, false},
		{"not busy", cluster.EndCall{SpareBusy: true}, false},
	} {
		made := s.active()
		s.inFlight(made.ID, "a/1", "c1")
		made.Session = s.get(made.ID)
		ended := s.end(c.call, made)
		if c.want {
			s.wantEnded(ended, cluster.StatusTerminated, made)
			continue
		}
		if got := s.get(made.ID); len(ended) > 0 || got.Status != cluster.StatusActive || got.Pending != 1 || got.Version != made.Version {
			t.Errorf("%s: %d ended, it is now %+v; want it untouched", c.name, len(ended), got)
		}
	}
	idle, fresh := s.active(), s.create()
	s.wantEnded(s.end(cluster.EndCall{SpareBusy: true, Status: cluster.StatusEvicted}, idle), cluster.StatusEvicted, idle)
	s.wantEnded(s.end(cluster.EndCall{Was: cluster.StatusInitializing}, fresh), cluster.StatusTerminated, fresh)
}

func endTells(t *testing.T, s *suite) {
	s.open(nil)
	made, gone, unknown := s.active(), s.active(), known{token: s.token()}
	unknown.ID = unknown.token.ID
	s.terminate(gone.ID)
	before := s.get(gone.ID)
	ended := s.end(cluster.EndCall{Status: cluster.StatusClosed}, gone, made, unknown, made)
	s.wantEnded(ended, cluster.StatusClosed, made)
	if diff := gocmp.Diff(before, s.get(gone.ID)); diff != "" {
		t.Errorf("a session that had ended was changed:\n%s", diff)
	}
	if again := s.end(cluster.EndCall{}, made, gone); len(again) > 0 {
		t.Errorf("%d sessions were ended twice", len(again))
	}
	if ended, err := s.store.End(t.Context(), cluster.EndCall{Status: cluster.StatusClosed}); err != nil || len(ended) > 0 {
		t.Errorf("End of none: %v, %v", ended, err)
	}
}

func endGivesPlacesBack(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 1 })
	made := s.mustCreateFor("ann")
	if _, err := s.createFor("ann"); !errors.Is(err, cluster.ErrPrincipalCapacity) {
		t.Fatalf("a second session of one: %v", err)
	}
	s.end(cluster.EndCall{}, known{Session: made})
	if page := s.pages(cluster.Query{Principal: "ann", Limit: 10}); len(page) > 0 {
		t.Errorf("it is listed still: %v", page)
	}
	s.mustCreateFor("ann")
}

func endMany(t *testing.T, s *suite) {
	s.open(nil)
	made := make([]known, 0, 230)
	for range 230 {
		made = append(made, s.create())
	}
	s.wantEnded(s.end(cluster.EndCall{}, made...), cluster.StatusTerminated, made...)
	purged, err := s.store.Purge(t.Context(), operator(0), idsOf(made...))
	if err != nil || !sameIDs(purged, idsOf(made...)) {
		t.Errorf("Purge of %d: %d, %v", len(made), len(purged), err)
	}
}

func sameIDs(a, b []cluster.ID) bool {
	byID := func(x, y cluster.ID) int { return slices.Compare(x[:], y[:]) }
	return slices.Equal(slices.SortedFunc(slices.Values(a), byID), slices.SortedFunc(slices.Values(b), byID))
}

func endRefusesStatuses(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	for _, status := range []cluster.Status{"", cluster.StatusActive, cluster.StatusInitializing, "asleep"} {
		ended, err := s.store.End(t.Context(), cluster.EndCall{IDs: []cluster.ID{made.ID}, Status: status})
		if len(ended) > 0 || !errors.Is(err, cluster.ErrIllegalTransition) {
			t.Errorf("End with status %q: %v, %v; want ErrIllegalTransition", status, ended, err)
		}
	}
	if got := s.get(made.ID); got.Status != cluster.StatusActive {
		t.Errorf("it is %s now", got.Status)
	}
}

func purgeRemoves(t *testing.T, s *suite) {
	s.open(nil)
	live, gone, unknown := s.active(), s.active(), s.token().ID
	for _, id := range []cluster.ID{live.ID, gone.ID} {
		s.mustAppend(id, "s", 1, "one")
		s.record(id, named("ab")...)
		s.inFlight(id, "a/1", "c1")
	}
	before := s.get(live.ID)
	s.terminate(gone.ID)
	purged, err := s.store.Purge(t.Context(), operator(0), []cluster.ID{live.ID, gone.ID, unknown, gone.ID})
	if err != nil || !slices.Equal(purged, []cluster.ID{gone.ID}) {
		t.Errorf("purged %v, %v; want %v", purged, err, gone.ID)
	}
	if _, err := s.store.Get(t.Context(), gone.ID); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("its record: %v, want ErrNotFound", err)
	}
	s.wantNoFrames(gone.ID)
	if diff := gocmp.Diff(before, s.get(live.ID)); diff != "" {
		t.Errorf("a live session was changed:\n%s", diff)
	}
	s.wantEvents(live.ID, "s", 0, 1, "one")
	if got := s.stats().ByStatus[cluster.StatusTerminated]; got != 0 {
		t.Errorf("%d terminated sessions are counted", got)
	}
}

func endLooksAtTimes(t *testing.T, s *suite) {
	s.open(nil)
	old := s.active()
	s.b.Advance(10 * time.Minute)
	young := s.active()
	s.b.Advance(time.Minute)
	if r := s.report(cluster.Report{ID: old.ID, Idle: 0}); r.Err != nil {
		t.Fatal(r.Err)
	}
	for _, c := range []struct {
		name string
		call cluster.EndCall
	}{
		{"idle for longer than either", cluster.EndCall{IdleFor: time.Minute + time.Millisecond}},
		{"older than either", cluster.EndCall{OlderThan: 11*time.Minute + time.Millisecond}},
		{"the idle one is young", cluster.EndCall{IdleFor: time.Minute, OlderThan: 2 * time.Minute}},
	} {
		if ended := s.end(c.call, old, young); len(ended) > 0 {
			t.Errorf("%s: %d were ended", c.name, len(ended))
		}
	}
	s.wantEnded(s.end(cluster.EndCall{IdleFor: time.Minute}, old, young), cluster.StatusTerminated, young)
	s.wantEnded(s.end(cluster.EndCall{OlderThan: 11 * time.Minute}, old, young), cluster.StatusTerminated, old)
}

func endOfDue(_ *testing.T, s *suite) {
	s.open(nil)
	due := s.active()
	s.b.Advance(idle() / 2)
	made := s.active()
	s.b.Advance(idle() - idle()/2)
	ended := s.end(cluster.EndCall{Status: cluster.StatusEvicted}, due, made)
	byStatus := func(status cluster.Status) []cluster.Session {
		return slices.DeleteFunc(slices.Clone(ended), func(e cluster.Session) bool { return e.Status != status })
	}
	s.wantEnded(byStatus(cluster.StatusExpired), cluster.StatusExpired, due)
	s.wantEnded(byStatus(cluster.StatusEvicted), cluster.StatusEvicted, made)
}

func statsLag(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.Retention = time.Minute })
	want := func(lag time.Duration, when string) {
		t.Helper()
		if got := s.stats().Lag; got != lag {
			t.Errorf("%s: lag %v, want %v", when, got, lag)
		}
	}
	want(0, "empty")
	gone := s.active()
	s.b.Advance(time.Second)
	s.active()
	s.terminate(gone.ID)
	want(0, "nothing is due")
	s.b.Advance(time.Minute - time.Millisecond)
	want(0, "just before the end of the retention")
	s.b.Advance(3 * time.Millisecond)
	want(2*time.Millisecond, "a record waits to be purged")
	s.b.Advance(idle() - time.Minute)
	want(idle()-time.Minute+2*time.Millisecond, "a session waits, too, for less long")
	if _, err := s.store.Sweep(t.Context(), sweep); err != nil {
		t.Fatal(err)
	}
	want(0, "after a sweep")
}

func replicasLive(t *testing.T, s *suite) {
	s.open(nil)
	beat := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if err := s.store.Beat(t.Context(), name); err != nil {
				t.Fatalf("Beat: %v", err)
			}
		}
	}
	want := func(names ...string) {
		t.Helper()
		got, err := s.store.Replicas(t.Context())
		slices.Sort(got)
		if err != nil || !slices.Equal(got, names) {
			t.Errorf("replicas that live: %q, %v; want %q", got, err, names)
		}
	}
	want()
	beat("a/1", "b/1")
	s.b.Advance(4 * time.Second)
	beat("b/1", "c d/1")
	want("a/1", "b/1", "c d/1")
	s.b.Advance(time.Second)
	want("a/1", "b/1", "c d/1")
	s.b.Advance(time.Millisecond)
	want("b/1", "c d/1")
	if err := s.store.Leave(t.Context(), "b/1"); err != nil {
		t.Fatalf("Leave: %v", err)
	}
	if err := s.store.Leave(t.Context(), "nobody"); err != nil {
		t.Errorf("Leave of nobody: %v", err)
	}
	want("c d/1")
	s.b.Advance(9 * time.Minute)
	beat("a/1")
	want("a/1")
	s.b.Advance(11 * time.Minute)
	want()
}
