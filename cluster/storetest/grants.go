package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var grantTests = map[string]func(*testing.T, *suite){
	"requests without a session are granted up to a rate":     grantsHold,
	"requests without a session are any number without limit": grantsUnlimited,
	"requests without a session need a principal":             grantsNeedAPrincipal,
}

var timedGrantTests = map[string]func(*testing.T, *suite){
	"granted requests come back with time": grantsComeBack,
}

// granted asks for requests of a principal; 0: refused.
func (s *suite) granted(p cluster.Principal, want int) int {
	s.t.Helper()
	n, err := s.store.GrantRequests(s.t.Context(), p, want)
	limit, isLimit := errors.AsType[*cluster.LimitError](err)
	switch {
	case err == nil && n >= 1 && n <= max(want, 1):
		return n
	case isLimit && errors.Is(err, cluster.ErrRateLimited) && limit.Limit == "stateless_rate_per_principal" && limit.RetryAfter > 0 &&
		limit.RetryAfter <= time.Second:
		return 0
	}
	s.t.Fatalf("GrantRequests(%s, %d) = %d, %v", p, want, n, err)
	return 0
}

func limitedTo(rate int) func(*cluster.Config) {
	return func(c *cluster.Config) { c.StatelessRatePerPrincipal = rate }
}

func grantsHold(t *testing.T, s *suite) {
	const rate = 20
	s.open(limitedTo(rate))
	begun, total := time.Now(), 0
	if got := s.granted("alice", rate); got != 1+(rate-1)/4 {
		t.Errorf("of %d wanted %d were granted, want one and a quarter of the rest", rate, got)
	} else {
		total += got
	}
	for range 3 * rate {
		total += s.granted("alice", 1)
	}
	if most := rate + int(time.Since(begun).Seconds()*rate) + 1; total < rate || total > most {
		t.Errorf("%d were granted, want %d to %d", total, rate, most)
	}
	if got := s.granted("bob", 0); got != 1 {
		t.Errorf("somebody else was granted %d, want 1", got)
	}
}

func grantsUnlimited(t *testing.T, s *suite) {
	s.open(limitedTo(0))
	if got := s.granted("alice", 1000); got != 1000 {
		t.Errorf("%d were granted, want 1000", got)
	}
}

func grantsNeedAPrincipal(t *testing.T, s *suite) {
	s.open(limitedTo(1))
	for _, p := range []cluster.Principal{"", "}x{"} {
		if n, err := s.store.GrantRequests(t.Context(), p, 1); err == nil {
			t.Errorf("GrantRequests(%q) = %d", p, n)
		}
	}
}

func grantsComeBack(t *testing.T, s *suite) {
	s.open(limitedTo(10))
	for range 10 {
		s.granted("alice", 1)
	}
	if got := s.granted("alice", 1); got != 0 {
		t.Errorf("beyond the rate %d were granted", got)
	}
	s.b.Advance(300 * time.Millisecond)
	for i := range 3 {
		if got := s.granted("alice", 1); got != 1 {
			t.Errorf("after 300 ms request %d was refused", i)
		}
	}
	if got := s.granted("alice", 1); got != 0 {
		t.Errorf("after 300 ms a fourth request was granted")
	}
	s.b.Advance(time.Hour) // the bucket is full, and holds no more than it can
	total := 0
	for range 20 {
		total += s.granted("alice", 1)
	}
	if total != 10 {
		t.Errorf("after an hour %d were granted, want 10", total)
	}
}
