package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func leaseVerifies(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	before := s.get(made.ID)
	stranger := s.token()
	for name, spoil := range map[string]func(*cluster.LeaseCall){
		"wrong secret":     func(c *cluster.LeaseCall) { c.Digest = stranger.Digest() },
		"no secret":        func(c *cluster.LeaseCall) { c.Digest = cluster.Digest{} },
		"wrong upstream":   func(c *cluster.LeaseCall) { c.Upstream = "other" },
		"wrong principal":  func(c *cluster.LeaseCall) { c.Principal = "fedcba9876543210" },
		"without identity": func(c *cluster.LeaseCall) { c.Principal = "" },
	} {
		call := leaseCall(made, 1)
		spoil(&call)
		if _, err := s.store.Lease(t.Context(), call); !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	if after := s.get(made.ID); after.Requests != before.Requests || !after.LastActivityAt.Equal(before.LastActivityAt) {
		t.Error("a refused lease left a trace in the session")
	}
	grant := s.mustLease(made, 1)
	if grant.Session.Requests != 1 || grant.Session.UpstreamSession != "upstream-session" {
		t.Errorf("granted record: %+v", grant.Session)
	}
	if want := limits().IdleTimeout + limits().ReportSlack; grant.EndsIn != want {
		t.Errorf("ends in %v, want %v", grant.EndsIn, want)
	}
	bare := s.token() // of the upstream without a name, without a principal
	made.Session, made.token = s.bare(bare), bare
	if _, err := s.store.Lease(t.Context(), cluster.LeaseCall{ID: bare.ID, Digest: bare.Digest(), Want: 1}); err != nil {
		t.Errorf("a session without any names: %v", err)
	}
	call := leaseCall(made, 1)
	if _, err := s.store.Lease(t.Context(), call); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("that session under another's names: %v, want ErrNotFound", err)
	}
}

func leaseOfKnown(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	call := leaseCall(made, 1)
	call.KnownVersion = s.mustLease(made, 1).Session.Version
	known, err := s.store.Lease(t.Context(), call)
	if want := limits().IdleTimeout + limits().ReportSlack; err != nil || !known.IsKnown || known.Session != (cluster.Session{}) ||
		known.Budget != 1 || known.EndsIn != want {
		t.Errorf("of a known record: %+v, %v", known, err)
	}
	if got := s.get(made.ID).Requests; got != 2 {
		t.Errorf("%d requests were counted, want 2", got)
	}
	for _, other := range []int64{0, call.KnownVersion - 1, call.KnownVersion + 1} {
		call.KnownVersion = other
		if told, err := s.store.Lease(t.Context(), call); err != nil || told.IsKnown || told.Session.UpstreamSession != "upstream-session" {
			t.Errorf("of version %d: %+v, %v", other, told, err)
		}
	}
	call.KnownVersion, call.Digest = s.get(made.ID).Version, s.token().Digest()
	if _, err := s.store.Lease(t.Context(), call); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("of who knows the version, but not the secret: %v, want ErrNotFound", err)
	}
}

func leaseBudget(t *testing.T, s *suite) {
	// So slow a rate that the time the test takes gives nothing back.
	s.open(func(c *cluster.Config) { c.RequestRate = 1; c.RequestBurst = 20 })
	made := s.active()
	if got := s.mustLease(made, 5).Budget; got != 5 {
		t.Errorf("granted %d of 5", got)
	}
	if got := s.takeAll(made).Budget; got < 15 || got > 16 {
		t.Errorf("granted %d of the 15 that were left", got)
	}
	for range 3 { // until the little that time gave back is gone
		if _, err := s.lease(made, 1); err != nil {
			limit, ok := errors.AsType[*cluster.LimitError](err)
			if !ok || !errors.Is(err, cluster.ErrRateLimited) || limit.RetryAfter <= 0 || limit.RetryAfter > time.Second {
				t.Errorf("beyond the burst: %v, want a LimitError that is ErrRateLimited, retry within 1s", err)
			}
			return
		}
	}
	t.Error("leases beyond the burst were granted")
}

func leaseNeeds(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.RequestRate = 1; c.RequestBurst = 10 })
	made := s.active()
	call := leaseCall(made, 1)
	call.Need = 6
	grant, err := s.store.Lease(t.Context(), call)
	if err != nil || grant.Budget != 6 || grant.Session.Requests != 6 {
		t.Errorf("6 of 10: granted %d, counted %d, %v", grant.Budget, grant.Session.Requests, err)
	}
	_, err = s.store.Lease(t.Context(), call)
	if limit, ok := errors.AsType[*cluster.LimitError](err); !ok || limit.RetryAfter > 2*time.Second {
		t.Errorf("6 of 4: %v, want a refusal for less than 2s", err)
	}
	if got := s.get(made.ID).Requests; got != 6 {
		t.Errorf("a refused lease was counted: %d requests", got)
	}
}

// leaseLeavesRest: what one replica is granted beyond its need, another must do without.
func leaseLeavesRest(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.RequestRate = 1; c.RequestBurst = 20 })
	made := s.active()
	call := leaseCall(made, 4)
	call.Want = 20
	if grant, err := s.store.Lease(t.Context(), call); err != nil || grant.Budget != 8 {
		t.Errorf("granted %d, %v; want the 4 that are needed and a quarter of the other 16", grant.Budget, err)
	}
	call.Want = 5
	if grant, err := s.store.Lease(t.Context(), call); err != nil || grant.Budget != 5 {
		t.Errorf("granted %d, %v; want 5, which is less than a quarter more", grant.Budget, err)
	}
}

func leaseUnlimited(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.RequestRate = 0 })
	made := s.active()
	for range 3 {
		if got := s.mustLease(made, 1000).Budget; got != 1000 {
			t.Errorf("granted %d of 1000", got)
		}
	}
}

func reportRenews(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.RequestRate = 1; c.RequestBurst = 20 })
	made := s.active()
	granted := s.mustLease(made, 20)
	r := s.report(cluster.Report{ID: made.ID, Idle: 0, Requests: 7, Unspent: 12, UnspentSince: granted.At, Want: 5})
	if r.Err != nil || r.Version != made.Version || r.Budget != 3 {
		t.Errorf("renewal: %+v; want version %d and a quarter of the 12 requests that were given back", r, made.Version)
	}
	if r.EndsIn <= 0 || r.EndsIn > limits().IdleTimeout+limits().ReportSlack {
		t.Errorf("ends in %v", r.EndsIn)
	}
	if got := s.get(made.ID).Requests; got != 27 { // twenty by the lease, seven by the report
		t.Errorf("%d requests counted, want 27", got)
	}
	if got := s.takeAll(made).Budget; got < 9 || got > 10 {
		t.Errorf("granted %d, want the 9 that were given back and not taken again", got)
	}
	if r := s.report(cluster.Report{ID: made.ID, Idle: -1, Want: 3}); r.Err != nil || r.Budget > 1 {
		t.Errorf("an empty bucket granted %d, %v", r.Budget, r.Err)
	}
}

func reportPending(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	pending := func() int { return s.get(made.ID).Pending }
	one := cluster.PendingRequest{Key: "c1", Owner: "replica/x", Age: time.Second}
	two := cluster.PendingRequest{Key: `c"1"`, Owner: "replica/x", Age: time.Second}
	for range 2 { // twice is the same as once
		s.report(cluster.Report{ID: made.ID, Started: []cluster.PendingRequest{one, two}})
	}
	if got := pending(); got != 2 {
		t.Errorf("%d pending requests, want 2", got)
	}
	s.report(cluster.Report{ID: made.ID, Finished: []string{"c1", "never was"}})
	if got := pending(); got != 1 {
		t.Errorf("%d pending requests, want 1", got)
	}
	if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed); err != nil {
		t.Fatal(err)
	}
	if got := pending(); got != 0 {
		t.Errorf("%d pending requests of an ended session", got)
	}
	if r := s.report(cluster.Report{ID: made.ID, Started: []cluster.PendingRequest{one}}); !errors.Is(r.Err, cluster.ErrNotFound) {
		t.Errorf("report on an ended session: %v", r.Err)
	}
	if got := pending(); got != 0 {
		t.Error("a report revived an ended session's pending requests")
	}
}

func reportAndCheckGone(t *testing.T, s *suite) {
	s.open(nil)
	alive, gone, initializing := s.active(), s.active(), s.create()
	if _, err := s.store.Terminate(t.Context(), gone.ID, cluster.StatusTerminated); err != nil {
		t.Fatal(err)
	}
	ids := []cluster.ID{alive.ID, gone.ID, initializing.ID, s.token().ID}
	reports := make([]cluster.Report, len(ids))
	for i, id := range ids {
		reports[i] = cluster.Report{ID: id, Idle: 0, Requests: 1}
	}
	renewals := s.store.Report(t.Context(), reports)
	checks := s.store.Check(t.Context(), ids)
	for i := range ids {
		wantGone := i > 0
		if got := errors.Is(renewals[i].Err, cluster.ErrNotFound); got != wantGone {
			t.Errorf("report %d: %v, want gone: %v", i, renewals[i].Err, wantGone)
		}
		if got := errors.Is(checks[i], cluster.ErrNotFound); got != wantGone {
			t.Errorf("check %d: %v, want gone: %v", i, checks[i], wantGone)
		}
	}
}

func reportMany(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 0 })
	const n = 120 // several scripts, the last one not full
	reports := make([]cluster.Report, 0, n)
	for i := range n {
		id := s.token().ID
		if i%3 != 0 {
			id = s.active().ID
		}
		reports = append(reports, cluster.Report{ID: id, Idle: 0, Requests: i})
	}
	for i, r := range s.store.Report(t.Context(), reports) {
		if gone := errors.Is(r.Err, cluster.ErrNotFound); gone != (i%3 == 0) || (!gone && r.Err != nil) {
			t.Fatalf("renewal %d: %v", i, r.Err)
		}
		if i%3 != 0 {
			if got := s.get(reports[i].ID).Requests; got != int64(i) {
				t.Fatalf("session %d has %d requests", i, got)
			}
		}
	}
}
