package storetest

import (
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var rateTests = map[string]func(*testing.T, *suite){
	"creations over their rate are refused": createRateRefuses,
}

var timedRateTests = map[string]func(*testing.T, *suite){
	"the rate of creations allows a second's worth at once":          createRateBurst,
	"a principal over its rate of creations takes nothing of others": createRateOfPrincipal,
	"a creation refused for its rate leaves nothing":                 refusedCreationLeavesNothing,
}

// createRateRefuses works by a clock of any kind: even a slow test creates some too many.
func createRateRefuses(t *testing.T, s *suite) {
	for setting, limit := range map[string]func(*cluster.Config){
		"create_rate":               func(c *cluster.Config) { c.CreateRate = 1 },
		"create_rate_per_principal": func(c *cluster.Config) { c.CreateRatePerPrincipal = 1 },
	} {
		s.open(limit)
		var err error
		for range 20 {
			if _, err = s.createFor("p"); err != nil {
				break
			}
		}
		if refusal := s.wantRefusal(err, setting, cluster.ErrCreationLimited); refusal.RetryAfter > time.Second {
			t.Errorf("%s: retry after %v, want at most 1s", setting, refusal.RetryAfter)
		}
	}
}

func createRateBurst(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.CreateRate = 3 })
	burst := func(n int) cluster.LimitError {
		for range n {
			s.mustCreateFor("")
		}
		_, err := s.createFor("")
		return s.wantRefusal(err, "create_rate", cluster.ErrCreationLimited)
	}
	refusal := burst(3)
	if refusal.RetryAfter < 333*time.Millisecond || refusal.RetryAfter > 334*time.Millisecond {
		t.Errorf("retry after %v, want a third of a second", refusal.RetryAfter)
	}
	s.b.Advance(refusal.RetryAfter - 2*time.Millisecond)
	burst(0)
	s.b.Advance(2 * time.Millisecond)
	refusal = burst(1)
	s.b.Advance(refusal.RetryAfter)
	burst(1)
	s.b.Advance(time.Hour)
	burst(3)
}

func createRateOfPrincipal(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.CreateRate, c.CreateRatePerPrincipal = 5, 2 })
	overRate := func(p cluster.Principal, setting string) cluster.LimitError {
		_, err := s.createFor(p)
		return s.wantRefusal(err, setting, cluster.ErrCreationLimited)
	}
	s.mustCreateFor("p")
	s.mustCreateFor("p")
	var refusal cluster.LimitError
	for range 20 {
		refusal = overRate("p", "create_rate_per_principal")
	}
	if refusal.RetryAfter != 500*time.Millisecond {
		t.Errorf("retry after %v, want 500ms", refusal.RetryAfter)
	}
	for _, p := range []cluster.Principal{"q", "r", ""} { // five in all: the refusals took none
		s.mustCreateFor(p)
	}
	overRate("q", "create_rate")
	s.b.Advance(refusal.RetryAfter)
	s.mustCreateFor("p")
}

func refusedCreationLeavesNothing(t *testing.T, s *suite) {
	for setting, limit := range map[string]func(*cluster.Config){
		"create_rate":               func(c *cluster.Config) { c.CreateRate = 1 },
		"create_rate_per_principal": func(c *cluster.Config) { c.CreateRatePerPrincipal = 1 },
	} {
		s.open(func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 2; limit(c) })
		s.mustCreateFor("p")
		for range 5 {
			_, err := s.createFor("p")
			s.wantRefusal(err, setting, cluster.ErrCreationLimited)
			c := creation(s.token())
			c.Principal = "p"
			_, err = s.store.Create(t.Context(), c)
			s.wantRefusal(err, setting, cluster.ErrCreationLimited)
		}
		if stats := s.stats(); stats.Created != 1 || stats.ByStatus[cluster.StatusInitializing] != 1 {
			t.Errorf("%s: %+v; want one session", setting, stats)
		}
		s.b.Verify(t)
		s.b.Advance(time.Second)
		s.mustCreateFor("p") // the second place is free
	}
}
