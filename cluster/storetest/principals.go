package storetest

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var principalTests = map[string]func(*testing.T, *suite){
	"a principal's cap holds over all creates":         principalCapHolds,
	"a principal's place comes back with a session":    placeComesBack,
	"a principal's place comes back at the cap of all": placeComesBackAtCap,
	"a principal's cap is nobody else's":               principalCapIsItsOwn,
}

// orderedPrincipalTests need one exact order of eviction.
var orderedPrincipalTests = map[string]func(*testing.T, *suite){
	"a principal's place comes back when its session is evicted": placeComesBackByEviction,
	"create repeated answers although every limit is reached":    createRepeatedAtLimits,
}

var timedPrincipalTests = map[string]func(*testing.T, *suite){
	"a principal's place comes back when its session expires": placeComesBackBySweep,
}

// createFor makes a session of a principal, with a token of the store's choice.
func (s *suite) createFor(p cluster.Principal) (cluster.Created, error) {
	s.t.Helper()
	return s.store.Create(s.t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "weather", Principal: p}})
}

func (s *suite) mustCreateFor(p cluster.Principal) cluster.Session {
	s.t.Helper()
	created, err := s.createFor(p)
	if err != nil {
		s.t.Fatalf("Create for principal %q: %v", p, err)
	}
	return created.Session
}

func (s *suite) terminate(id cluster.ID) {
	s.t.Helper()
	if _, err := s.store.Terminate(s.t.Context(), id, cluster.StatusTerminated); err != nil {
		s.t.Fatalf("Terminate: %v", err)
	}
}

// wantRefusal fails the test unless err is a refusal of just this kind, by this setting.
func (s *suite) wantRefusal(err error, setting string, kind error) cluster.LimitError {
	s.t.Helper()
	limit, ok := errors.AsType[*cluster.LimitError](err)
	if !ok || !errors.Is(err, kind) || limit.Limit != setting || limit.RetryAfter < time.Millisecond {
		s.t.Fatalf("%v, want a LimitError of %s that is %q, with a time to retry after", err, setting, kind)
	}
	return *limit
}

// principalCapHolds creates for one principal from many goroutines at once, far beyond its cap.
func principalCapHolds(t *testing.T, s *suite) {
	const most, creators = 5, 64
	s.open(func(c *cluster.Config) { c.MaxSessions = 1000; c.MaxSessionsPerPrincipal = most })
	var (
		begin   = make(chan struct{})
		results = make(chan error, creators)
		wg      sync.WaitGroup
	)
	for range creators {
		wg.Go(func() {
			<-begin
			_, err := s.store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u", Principal: "crowd"}})
			results <- err
		})
	}
	close(begin)
	wg.Wait()
	made := 0
	for range creators {
		if err := <-results; err != nil {
			s.wantRefusal(err, "max_sessions_per_principal", cluster.ErrPrincipalCapacity)
			continue
		}
		made++
	}
	if listed := len(s.pages(cluster.Query{Principal: "crowd", Limit: 100})); made != most || listed != most {
		t.Errorf("%d sessions made, %d listed; the cap is %d", made, listed, most)
	}
}

func placeComesBack(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 2 })
	s.mustCreateFor("p")
	for range 3 {
		made := s.mustCreateFor("p")
		_, err := s.createFor("p")
		s.wantRefusal(err, "max_sessions_per_principal", cluster.ErrPrincipalCapacity)
		s.terminate(made.ID)
		if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed); !errors.Is(err, cluster.ErrIllegalTransition) {
			t.Errorf("second terminate: %v", err) // and no second place came back
		}
	}
}

// placeComesBackAtCap: what max_sessions refuses leaves no place behind.
func placeComesBackAtCap(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) {
		c.MaxSessions = 16 // one for each partition, where there are any
		c.EvictMinIdle = time.Hour
		c.MaxSessionsPerPrincipal = 1
	})
	var last cluster.Session
	for range 16 {
		last = s.mustCreateFor("")
	}
	for range 3 {
		_, err := s.createFor("p")
		s.wantRefusal(err, "max_sessions", cluster.ErrCapacity)
		c := creation(s.token())
		c.Principal = "p"
		_, err = s.store.Create(t.Context(), c)
		s.wantRefusal(err, "max_sessions", cluster.ErrCapacity)
	}
	s.terminate(last.ID)
	s.mustCreateFor("p")
}

func principalCapIsItsOwn(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 1 })
	for i := range 5 {
		s.mustCreateFor("") // without a principal there is no cap
		s.mustCreateFor(cluster.Principal("p-" + strconv.Itoa(i)))
	}
	_, err := s.createFor("p-0")
	s.wantRefusal(err, "max_sessions_per_principal", cluster.ErrPrincipalCapacity)
	s.open(func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 0 })
	for range 5 {
		s.mustCreateFor("p")
	}
}

func placeComesBackByEviction(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 2; c.MaxSessionsPerPrincipal = 1 })
	first := s.mustCreateFor("p")
	s.settle()
	s.mustCreateFor("q")
	s.settle()
	s.mustCreateFor("r")
	if got := s.get(first.ID).Status; got != cluster.StatusEvicted {
		t.Fatalf("the first session is %s, want evicted", got)
	}
	s.mustCreateFor("p")
}

func placeComesBackBySweep(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 3 })
	for range 3 {
		s.mustCreateFor("p")
	}
	s.b.Advance(limits().InitializeTimeout)
	if swept, err := s.store.Sweep(t.Context(), sweep); err != nil || len(swept.Expired) != 3 {
		t.Fatalf("swept %d, %v; want 3 expired", len(swept.Expired), err)
	}
	s.b.Verify(t) // the sweep itself has given the places back
	for range 3 {
		s.mustCreateFor("p")
	}
}

// createRepeatedAtLimits: a lost reply is made good although nobody may create any more.
func createRepeatedAtLimits(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) {
		c.MaxSessions, c.MaxSessionsPerPrincipal = 1, 1
		c.CreateRate, c.CreateRatePerPrincipal = 1, 1
		c.EvictMinIdle = time.Hour
	})
	made := s.create()
	for range 3 {
		if _, err := s.store.Create(t.Context(), creation(s.token())); err == nil {
			t.Fatal("a session was made beyond all limits")
		}
		again, err := s.store.Create(t.Context(), creation(made.token))
		if err != nil || again.Session != made.Session || again.Token != made.token || len(again.Ended) > 0 {
			t.Fatalf("create repeated: %+v, %v; want what the first call returned", again.Session, err)
		}
	}
}
