package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var pendingTests = map[string]func(*testing.T, *suite){
	"requests in flight are counted in every answer":    pendingCounted,
	"lease refuses what would be too many in flight":    pendingLimited,
	"requests in flight are told, the oldest first":     pendingTold,
	"prune forgets what dead incarnations have left":    pruneForgets,
	"ending a session forgets its requests in flight":   endForgetsPending,
	"without a cap any number of requests is in flight": pendingUnlimited,
}

// inFlight reports that an incarnation has requests in flight.
func (s *suite) inFlight(id cluster.ID, owner string, keys ...string) cluster.Renewal {
	s.t.Helper()
	report := cluster.Report{ID: id}
	for _, key := range keys {
		report.Started = append(report.Started, cluster.PendingRequest{Key: key, Owner: owner, Age: time.Second})
	}
	renewal := s.report(report)
	if renewal.Err != nil {
		s.t.Fatalf("Report: %v", renewal.Err)
	}
	return renewal
}

func (s *suite) leasePending(k known, pending int) (cluster.Grant, error) {
	s.t.Helper()
	call := leaseCall(k, 1)
	call.Pending = pending
	return s.store.Lease(s.t.Context(), call)
}

func pendingCounted(t *testing.T, s *suite) {
	s.open(nil)
	made, other := s.active(), s.active()
	want := func(n int, renewal cluster.Renewal) {
		t.Helper()
		grant, err := s.leasePending(made, 1)
		if got := s.get(made.ID).Pending; err != nil || renewal.Pending != n || grant.Pending != n || grant.Session.Pending != n || got != n {
			t.Errorf("in flight by Report %d, by Lease %d and %d, by Get %d (%v); want %d",
				renewal.Pending, grant.Pending, grant.Session.Pending, got, err, n)
		}
	}
	want(0, s.inFlight(made.ID, "a/1"))
	want(2, s.inFlight(made.ID, "a/1", "c1", "c2"))
	want(2, s.inFlight(made.ID, "b/1", "c2")) // the key is another's now: a client may use an id again
	want(3, s.inFlight(made.ID, "b/1", "c3"))
	want(1, s.report(cluster.Report{ID: made.ID, Finished: []string{"c1", "c3", "unknown"}}))
	want(2, s.report(cluster.Report{
		ID: made.ID, Started: []cluster.PendingRequest{{Key: "c9", Owner: "a/1"}, {Key: "c8", Owner: "a/1"}}, Finished: []string{"c2"},
	})) // a report may do both
	if got := s.get(other.ID).Pending; got != 0 {
		t.Errorf("another session has %d requests in flight", got)
	}
}

func pendingLimited(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxPending = 3 })
	made := s.active()
	s.inFlight(made.ID, "a/1", "c1", "c2")
	if _, err := s.leasePending(made, 1); err != nil {
		t.Errorf("the third of three: %v", err)
	}
	before := s.get(made.ID)
	_, err := s.leasePending(made, 2)
	s.wantRefusal(err, "max_pending", cluster.ErrPendingLimited)
	s.inFlight(made.ID, "a/1", "c3", "c4") // replicas may be over the cap together for one report interval
	_, err = s.leasePending(made, 1)
	s.wantRefusal(err, "max_pending", cluster.ErrPendingLimited)
	if after := s.get(made.ID); after.Requests != before.Requests {
		t.Errorf("refused requests were counted: %d, then %d", before.Requests, after.Requests)
	}
	if _, err := s.leasePending(made, 0); err != nil {
		t.Errorf("a message that expects no answer, at the cap: %v", err)
	}
	s.report(cluster.Report{ID: made.ID, Finished: []string{"c2", "c4"}})
	if _, err := s.leasePending(made, 1); err != nil {
		t.Errorf("after one was over: %v", err)
	}
}

func pendingUnlimited(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxPending = 0 })
	made := s.active()
	s.inFlight(made.ID, "a/1", "c1", "c2", "c3")
	if _, err := s.leasePending(made, 1000); err != nil {
		t.Errorf("1000 at once without a cap: %v", err)
	}
}

func pruneForgets(t *testing.T, s *suite) {
	s.open(nil)
	made, other := s.active(), s.active()
	s.inFlight(made.ID, "replica 1/AB", "c1", "c2", "c3")
	s.inFlight(made.ID, "replica 1/CD", "c4")
	s.inFlight(made.ID, "%w*[x]-", "c5")
	s.inFlight(other.ID, "replica 1/AB", "c1")
	s.report(cluster.Report{ID: made.ID, Finished: []string{"c3"}})
	for _, step := range []struct {
		dead          []string
		pruned, stays int
	}{
		{nil, 0, 4},
		{[]string{"replica 1", "replica 1/", "AB", "replica 1/A", "1/AB", ""}, 0, 4}, // names of nobody
		{[]string{"replica 1/AB", "nobody"}, 2, 2},
		{[]string{"replica 1/AB"}, 0, 2},
		{[]string{"%w*[x]-", "replica 1/CD"}, 2, 0},
	} {
		pruned, err := s.store.Prune(t.Context(), made.ID, step.dead)
		if stays := s.get(made.ID).Pending; err != nil || pruned != step.pruned || stays != step.stays {
			t.Errorf("Prune of %q: %d, %v, %d stay; want %d, %d stay", step.dead, pruned, err, stays, step.pruned, step.stays)
		}
	}
	if got := s.get(other.ID).Pending; got != 1 {
		t.Errorf("another session has %d requests in flight, want 1", got)
	}
	if pruned, err := s.store.Prune(t.Context(), s.token().ID, []string{"replica 1/AB"}); pruned != 0 || err != nil {
		t.Errorf("Prune of an unknown session: %d, %v; want 0", pruned, err)
	}
}

func endForgetsPending(t *testing.T, s *suite) {
	s.open(nil)
	for _, status := range cluster.Statuses() {
		if !status.Ended() {
			continue
		}
		made := s.active()
		s.inFlight(made.ID, "a/1", "c1", "c2")
		ended, err := s.store.Terminate(t.Context(), made.ID, status)
		if got := s.get(made.ID).Pending; err != nil || got != 0 || ended.Pending != 0 {
			t.Errorf("%s: %d requests in flight, then %d (%v); want 0", status, ended.Pending, got, err)
		}
		if pruned, err := s.store.Prune(t.Context(), made.ID, []string{"a/1"}); pruned != 0 || err != nil {
			t.Errorf("%s: %d were left to prune, %v", status, pruned, err)
		}
	}
}

func pendingTold(t *testing.T, s *suite) {
	s.open(nil)
	made, ended := s.active(), s.active()
	told := func(id cluster.ID) []cluster.PendingRequest {
		t.Helper()
		all, err := s.store.ReadPending(t.Context(), id)
		if err != nil {
			t.Fatalf("ReadPending: %v", err)
		}
		return all
	}
	if all := told(made.ID); len(all) != 0 {
		t.Errorf("of a session without requests in flight: %v", all)
	}
	s.report(cluster.Report{ID: made.ID, Started: []cluster.PendingRequest{
		{Key: "c:1", Owner: "a/1", Age: time.Second}, {Key: `c:"a b"`, Owner: "replica b/2", Age: time.Hour},
	}})
	all := told(made.ID)
	if len(all) != 2 || all[0].Key != `c:"a b"` || all[0].Owner != "replica b/2" || all[1].Key != "c:1" || all[1].Owner != "a/1" {
		t.Fatalf("in flight: %v", all)
	}
	if since := all[0].Age - time.Hour; since < 0 || since > time.Minute {
		t.Errorf("the oldest is %v old, want an hour", all[0].Age)
	}
	s.inFlight(ended.ID, "a/1", "c:1")
	if _, err := s.store.Terminate(t.Context(), ended.ID, cluster.StatusClosed); err != nil {
		t.Fatal(err)
	}
	if all := told(ended.ID); len(all) != 0 {
		t.Errorf("of an ended session: %v", all)
	}
	if _, err := s.store.ReadPending(t.Context(), s.token().ID); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("of an unknown session: %v, want ErrNotFound", err)
	}
}
