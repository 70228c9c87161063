package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var queryTests = map[string]func(*testing.T, *suite){
	"listings select by status":                    listByStatus,
	"listings select by principal":                 listByPrincipal,
	"listings that contradict themselves refuse":   listRefusesQueries,
	"cursors of another listing are refused":       listRefusesOtherCursors,
	"a selective listing ends, whatever its pages": listSelective,
}

var timedQueryTests = map[string]func(*testing.T, *suite){
	"listings select by idle time and age": listByTime,
	"listings show what is due as expired": listDue,
}

// wantListed fails the test unless a query selects just these sessions, in pages of any size.
func (s *suite) wantListed(q cluster.Query, want ...known) {
	s.t.Helper()
	names := make([]string, 0, len(want))
	for _, k := range want {
		names = append(names, k.ID.String())
	}
	slices.Sort(names)
	for _, q.Limit = range []int{1, 3, 1000} {
		listed := make([]string, 0, len(want))
		for _, id := range s.pages(q) {
			listed = append(listed, id.String())
		}
		slices.Sort(listed)
		if diff := cmp.Diff(names, listed); diff != "" {
			s.t.Errorf("%+v (-want +listed):\n%s", q, diff)
		}
	}
}

// of makes a session of a principal; it stays initializing.
func (s *suite) of(p cluster.Principal) known {
	s.t.Helper()
	c := creation(s.token())
	c.Principal = p
	created, err := s.store.Create(s.t.Context(), c)
	if err != nil {
		s.t.Fatalf("Create: %v", err)
	}
	return known{Session: created.Session, token: created.Token}
}

func (s *suite) endAs(k known, status cluster.Status) known {
	s.t.Helper()
	if _, err := s.store.Terminate(s.t.Context(), k.ID, status); err != nil {
		s.t.Fatalf("Terminate: %v", err)
	}
	return k
}

func listByStatus(_ *testing.T, s *suite) {
	s.open(nil)
	active, initializing := make([]known, 0, 5), make([]known, 0, 5)
	closed, failed := make([]known, 0, 5), make([]known, 0, 5)
	for range 5 {
		active = append(active, s.active())
		initializing = append(initializing, s.create())
		closed = append(closed, s.endAs(s.active(), cluster.StatusClosed))
		failed = append(failed, s.endAs(s.create(), cluster.StatusFailed))
	}
	s.wantListed(cluster.Query{}, slices.Concat(active, initializing)...)
	s.wantListed(cluster.Query{Status: cluster.StatusActive}, active...)
	s.wantListed(cluster.Query{Status: cluster.StatusInitializing}, initializing...)
	s.wantListed(cluster.Query{Status: cluster.StatusExpired})
	s.wantListed(cluster.Query{Ended: true}, slices.Concat(closed, failed)...)
	s.wantListed(cluster.Query{Ended: true, Status: cluster.StatusClosed}, closed...)
	s.wantListed(cluster.Query{Ended: true, Status: cluster.StatusFailed}, failed...)
	s.wantListed(cluster.Query{Ended: true, Status: cluster.StatusEvicted})
}

func listByPrincipal(t *testing.T, s *suite) {
	s.open(nil)
	p := make([]known, 4)
	for i := range p {
		p[i] = s.of("p")
		s.settle()
	}
	q := []known{s.of("q"), s.endAs(s.of("q"), cluster.StatusClosed), s.endAs(s.of("q"), cluster.StatusFailed)}
	s.of("")
	s.wantListed(cluster.Query{Principal: "p"}, p...)
	s.wantListed(cluster.Query{Principal: "p", Status: cluster.StatusActive})
	s.wantListed(cluster.Query{Principal: "q"}, q[0])
	s.wantListed(cluster.Query{Principal: "q", Ended: true}, q[1:]...)
	s.wantListed(cluster.Query{Principal: "q", Ended: true, Status: cluster.StatusFailed}, q[2])
	s.wantListed(cluster.Query{Principal: "nobody"})
	s.wantListed(cluster.Query{Principal: "nobody", Ended: true})
	made, err := s.store.Update(t.Context(), change(p[1].Session, "writer"))
	if err != nil {
		t.Fatal(err)
	}
	s.wantListed(cluster.Query{Principal: "p", Status: cluster.StatusActive}, known{Session: made})
	s.terminate(p[0].ID)
	s.wantListed(cluster.Query{Principal: "p"}, p[1:]...)
	if listed := s.pages(cluster.Query{Principal: "p", Limit: 2}); listed[0] != p[1].ID || listed[2] != p[3].ID {
		t.Error("one principal's sessions are not listed by their creation")
	}
}

func listRefusesQueries(t *testing.T, s *suite) {
	s.open(nil)
	for name, q := range map[string]cluster.Query{
		"no limit":                   {},
		"a negative limit":           {Limit: -1},
		"too large a page":           {Limit: 1001},
		"an unknown status":          {Limit: 1, Status: "asleep"},
		"ended ones among the live":  {Limit: 1, Status: cluster.StatusClosed},
		"live ones among the ended":  {Limit: 1, Status: cluster.StatusActive, Ended: true},
		"new ones among the ended":   {Limit: 1, Status: cluster.StatusInitializing, Ended: true},
		"negative idle time":         {Limit: 1, IdleFor: -1},
		"negative age":               {Limit: 1, OlderThan: -time.Second},
		"a principal that is no one": {Limit: 1, Principal: "p}:x"},
	} {
		if page, err := s.store.List(t.Context(), q); !errors.Is(err, cluster.ErrInvalidQuery) {
			t.Errorf("%s: %d sessions, %v; want ErrInvalidQuery", name, len(page.Sessions), err)
		}
	}
}

func listRefusesOtherCursors(t *testing.T, s *suite) {
	s.open(nil)
	for range 3 {
		s.of("p")
		s.of("q")
		s.endAs(s.of("p"), cluster.StatusClosed)
	}
	listings := []cluster.Query{{Limit: 1}, {Limit: 1, Ended: true}, {Limit: 1, Principal: "p"}, {Limit: 1, Principal: "q"}}
	for i, from := range listings {
		page, err := s.store.List(t.Context(), from)
		if err != nil || page.Next == "" {
			t.Fatalf("%+v: next %q, %v", from, page.Next, err)
		}
		for j, to := range listings {
			to.Cursor = page.Next
			if _, err := s.store.List(t.Context(), to); errors.Is(err, cluster.ErrInvalidCursor) != (i != j) {
				t.Errorf("cursor %q of %+v with %+v: %v", page.Next, from, to, err)
			}
		}
	}
}

// listSelective: a query that almost nothing fits is answered in few calls of bounded work, also in pages of one.
func listSelective(t *testing.T, s *suite) {
	const others = 400
	s.open(func(c *cluster.Config) { c.MaxSessions = 0 })
	early := s.of("p")
	for range others {
		s.mustCreateFor("q")
	}
	late := s.active()
	s.settle()
	s.mustLease(late, 1) // last in every order
	for name, q := range map[string]cluster.Query{
		"by status":                {Limit: 1, Status: cluster.StatusActive},
		"by status of a principal": {Limit: 1, Status: cluster.StatusActive, Principal: "q"},
		"nothing":                  {Limit: 1, OlderThan: 24 * time.Hour},
	} {
		var listed []cluster.ID
		calls := 0
		for {
			page, err := s.store.List(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			calls++
			for _, session := range page.Sessions {
				listed = append(listed, session.ID)
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		want := 0
		if name == "by status" {
			want = 1
		}
		if len(listed) != want || calls > 3 {
			t.Errorf("%s: %d listed in %d calls, want %d in a few", name, len(listed), calls, want)
		}
	}
	s.wantListed(cluster.Query{Principal: "p"}, early)
}

func listByTime(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.EvictMinIdle = 0 })
	oldBusy, oldIdle := s.active(), s.active()
	s.b.Advance(10 * time.Minute)
	young := s.active()
	s.mustLease(oldBusy, 1)
	s.b.Advance(time.Minute)
	busy := s.active()
	ended := s.endAs(s.active(), cluster.StatusClosed)
	s.wantListed(cluster.Query{IdleFor: time.Minute}, oldBusy, oldIdle, young)
	s.wantListed(cluster.Query{IdleFor: time.Minute + time.Millisecond}, oldIdle)
	s.wantListed(cluster.Query{IdleFor: 11 * time.Minute}, oldIdle)
	s.wantListed(cluster.Query{IdleFor: 11*time.Minute + time.Millisecond})
	s.wantListed(cluster.Query{OlderThan: 11 * time.Minute}, oldBusy, oldIdle)
	s.wantListed(cluster.Query{OlderThan: time.Millisecond}, oldBusy, oldIdle, young)
	s.wantListed(cluster.Query{OlderThan: time.Minute, IdleFor: 2 * time.Minute}, oldIdle)
	s.wantListed(cluster.Query{OlderThan: 2 * time.Minute, IdleFor: time.Minute, Status: cluster.StatusActive, Principal: creation(s.token()).Principal}, oldBusy, oldIdle)
	s.wantListed(cluster.Query{Status: cluster.StatusInitializing, IdleFor: time.Minute})
	s.wantListed(cluster.Query{}, oldBusy, oldIdle, young, busy)
	s.wantListed(cluster.Query{Ended: true, IdleFor: time.Minute})
	s.b.Advance(time.Minute)
	s.wantListed(cluster.Query{Ended: true, IdleFor: time.Minute, OlderThan: time.Minute}, ended)
	s.wantListed(cluster.Query{IdleFor: cluster.MaxDuration, OlderThan: cluster.MaxDuration})
}

func listDue(_ *testing.T, s *suite) {
	s.open(nil)
	due := []known{s.active(), s.active()}
	s.b.Advance(idle())
	live := s.active() // expires both on its way: so make another
	due = append(due[:0], live)
	s.b.Advance(idle())
	s.wantListed(cluster.Query{}, due...)
	s.wantListed(cluster.Query{Status: cluster.StatusExpired}, due...)
	s.wantListed(cluster.Query{Status: cluster.StatusActive})
	s.wantListed(cluster.Query{Status: cluster.StatusExpired, Principal: live.Principal}, due...)
}
