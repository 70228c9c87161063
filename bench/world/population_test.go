package world_test

import (
	"testing"

	"github.com/tapwire/shadowcat-cluster/bench/world"
)

// perSession is what n more sessions cost each, in bytes.
func perSession(t *testing.T, s *world.Store, n int, more func() error) float64 {
	t.Helper()
	before := withoutClients(t, s)
	if err := more(); err != nil {
		t.Fatal(err)
	}
	return float64(withoutClients(t, s)-before) / float64(n)
}

// withoutClients is what a server uses once it has let go of its connections: the buffers of those that copied would count for seconds.
func withoutClients(t *testing.T, s *world.Store) int64 {
	t.Helper()
	if err := s.Client.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	used, err := world.UsedMemory(t.Context(), s.Client)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

func start(t *testing.T) *world.Store {
	t.Helper()
	s, err := world.StartStore(t.Context(), world.Limits(), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestCopiesOfSessionsAreLikeTheOriginals(t *testing.T) {
	t.Parallel()
	const n = 8000
	for name, message := range map[string]string{"with an initialize message": world.Initialize, "without": ""} {
		copied, made := start(t), start(t)
		for _, s := range []*world.Store{copied, made} { // scripts and connections cost something once
			if _, err := s.Fill(t.Context(), n, message); err != nil {
				t.Fatal(err)
			}
		}
		var population *world.Population
		withCopies := perSession(t, copied, n, func() (err error) {
			population, err = copied.Fill(t.Context(), n, message)
			return err
		})
		withoutCopies := perSession(t, made, n, func() error {
			for range n {
				if _, _, err := made.NewSession(t.Context(), message); err != nil {
					return err
				}
			}
			return nil
		})
		if ratio := withCopies / withoutCopies; ratio < 0.99 || ratio > 1.01 {
			t.Errorf("%s: %.0f bytes each with copies, %.0f without", name, withCopies, withoutCopies)
		}
		for _, i := range []int{0, population.Len() / 2, population.Len() - 1} {
			if grant, err := copied.Store.Lease(t.Context(), population.Call(i)); err != nil || grant.Session.ID != population.ID(i) {
				t.Errorf("%s: session %d: lease %+v, %v", name, i, grant, err)
			}
		}
		stats, err := copied.Store.Stats(t.Context())
		if err != nil || stats.Created != 2*n {
			t.Errorf("%s: %d sessions were created, %v", name, stats.Created, err)
		}
		if violations, err := copied.Store.Violations(t.Context()); err != nil || len(violations) > 0 {
			t.Errorf("%s: %d violations, such as %q, %v", name, len(violations), violations[:min(3, len(violations))], err)
		}
	}
}
