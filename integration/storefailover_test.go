package integration_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/deployment"
)

// Users see a failover of the store as a pause at most: nobody is told that a session is gone.
func TestSessionsSurviveAFailoverOfTheStore(t *testing.T) {
	for name, start := range startReplicated {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, primaryOf := start(t)
			sessionsSurviveFailover(t, at, primaryOf)
		})
	}
}

func sessionsSurviveFailover(t *testing.T, at replicated, primaryOf primaryFinder) {
	t.Helper()
	prefix := freshPrefix()
	d := newDeployment(t, at.URL(storeUser), newUpstream(t).URL(), "--prefix", prefix, "--request-rate=0")
	c := connect(t, d.URL(), "")
	c.mustCall(t, "test_simple_text", nil)
	tokens := make([]string, 8) // on a Redis Cluster some of them are on the primary that dies
	for i := range tokens {
		tokens[i] = openSession(t, d.URL(), "2025-11-25")
	}
	if err := at.WaitReplicated(t.Context()); err != nil {
		t.Fatal(err)
	}
	primary, err := primaryOf(prefix + ":{0}:lru")
	if err != nil {
		t.Fatal(err)
	}
	primary.Kill()
	killed := time.Now()

	seen := pingUntilServed(t, d, tokens, func() bool {
		now, err := primaryOf(prefix + ":{0}:lru")
		return err == nil && now != primary
	})
	outage := time.Since(killed)
	t.Logf("all sessions are served %s after the kill; the answers until then: %v", outage.Round(time.Millisecond), seen)
	if outage > failoverBound {
		t.Errorf("sessions were not served for %s, want at most %s", outage, failoverBound)
	}
	for range d.Replicas {
		c.mustCall(t, "test_simple_text", nil)
	}
	openSession(t, d.URL(), "2025-11-25")
	for _, e := range d.Front.Trace() {
		if e.Status == http.StatusNotFound {
			t.Errorf("replica %d answered %s %s with 404", e.Backend, e.HTTPMethod, e.RPCMethod)
		}
	}
}

// pingUntilServed pings each session at each replica, again and again, until the failover is over and all of them answer. It
// counts the answers by their status. Anything but 200 and 503 fails the test.
func pingUntilServed(t *testing.T, d *deployment.Deployment, tokens []string, isOver func() bool) map[int]int {
	t.Helper()
	seen := make(map[int]int)
	eventually(t, recovery, func(context.Context) error {
		over := isOver() // before the pings: those must work, then
		served := true
		for i, r := range d.Replicas {
			for _, token := range tokens {
				got := mustSend(t, post(r.URL(), token, pingBody))
				seen[got.status]++
				served = served && got.status == http.StatusOK
				if got.status != http.StatusOK && (got.status != http.StatusServiceUnavailable || got.reason() != "store_unavailable") {
					t.Errorf("replica %d: %s, want 200, or 503 with reason store_unavailable", i, got)
				}
			}
		}
		if !over || !served {
			return errors.New("not all sessions are served")
		}
		return nil
	})
	return seen
}
