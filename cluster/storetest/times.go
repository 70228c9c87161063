package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// idle is the time from the last activity to the end, by the limits of the suite.
func idle() time.Duration { return limits().IdleTimeout + limits().ReportSlack }

func (s *suite) wantLease(k known, alive bool, when string) {
	s.t.Helper()
	_, err := s.lease(k, 1)
	if alive && err != nil {
		s.t.Errorf("%s: %v, want a lease", when, err)
	}
	if !alive && !errors.Is(err, cluster.ErrNotFound) {
		s.t.Errorf("%s: %v, want ErrNotFound", when, err)
	}
}

func idleEnds(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.b.Advance(idle() - time.Millisecond)
	s.wantLease(made, true, "just before the idle end")
	s.b.Advance(idle() - time.Millisecond)
	s.wantLease(made, true, "the lease moved the end")
	s.b.Advance(idle())
	s.wantLease(made, false, "at the idle end")
	if r := s.report(cluster.Report{ID: made.ID, Idle: 0}); !errors.Is(r.Err, cluster.ErrNotFound) {
		t.Errorf("report after the end: %v", r.Err)
	}
	if errs := s.store.Check(t.Context(), []cluster.ID{made.ID}); !errors.Is(errs[0], cluster.ErrNotFound) {
		t.Errorf("check after the end: %v", errs[0])
	}
	if got := s.get(made.ID).Status; got != cluster.StatusExpired {
		t.Errorf("shown as %s, want expired", got)
	}
	if stats := s.stats(); stats.Due != 1 {
		t.Errorf("%d sessions due, want 1", stats.Due)
	}
}

func oldEnds(_ *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxAge = time.Hour })
	made := s.active()
	for range 3 {
		s.b.Advance(20*time.Minute - time.Millisecond)
		s.wantLease(made, true, "before the maximum age")
	}
	s.b.Advance(3 * time.Millisecond)
	s.wantLease(made, false, "at the maximum age")
}

func initializeTimesOut(t *testing.T, s *suite) {
	s.open(nil)
	made := s.create()
	s.b.Advance(limits().InitializeTimeout)
	if _, err := s.store.Update(t.Context(), change(made.Session, "w")); !errors.Is(err, cluster.ErrIllegalTransition) {
		t.Errorf("activation after the timeout: %v, want ErrIllegalTransition", err)
	}
}

func neverEnds(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.IdleTimeout, c.MaxAge = 0, 0 })
	made := s.active()
	if !made.DeadlineAt.IsZero() {
		t.Errorf("ends at %v, want never", made.DeadlineAt)
	}
	s.b.Advance(300 * 24 * time.Hour)
	if grant := s.mustLease(made, 1); grant.EndsIn >= 0 || !grant.Session.DeadlineAt.IsZero() {
		t.Errorf("lease says it ends in %v", grant.EndsIn)
	}
	if r := s.report(cluster.Report{ID: made.ID, Idle: 0}); r.Err != nil || r.EndsIn >= 0 {
		t.Errorf("report says %v, %v", r.EndsIn, r.Err)
	}
	s.b.Advance(300 * 24 * time.Hour)
	s.wantLease(made, true, "after 600 days")
}

func createExpiresDue(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 2; c.MaxAge = time.Hour; c.EvictMinIdle = time.Minute })
	old := s.active()
	s.b.Advance(50 * time.Minute / 2)
	s.wantLease(old, true, "half way")
	s.b.Advance(50 * time.Minute / 2)
	s.wantLease(old, true, "near its age")
	s.b.Advance(9*time.Minute + 50*time.Second)
	young := s.active()
	s.wantLease(old, true, "last activity")
	s.b.Advance(11 * time.Second) // old is the more recently used, but past its age
	s.active()
	if a, b := s.get(old.ID).Status, s.get(young.ID).Status; a != cluster.StatusExpired || b != cluster.StatusActive {
		t.Errorf("old is %s, young is %s; want expired, active", a, b)
	}
	if stats := s.stats(); stats.Ended[cluster.StatusExpired] != 1 || stats.Ended[cluster.StatusEvicted] != 0 {
		t.Errorf("ended: %+v", stats.Ended)
	}
}

func terminateOfDue(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.b.Advance(idle())
	got, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed)
	if !errors.Is(err, cluster.ErrIllegalTransition) || got.Status != cluster.StatusExpired {
		t.Errorf("terminate past the end: %s, %v; want expired, ErrIllegalTransition", got.Status, err)
	}
}

func budgetComesBack(t *testing.T, s *suite) {
	s.open(nil) // 10/s, burst 20
	made := s.active()
	s.mustLease(made, 20)
	_, err := s.lease(made, 1)
	limit, ok := errors.AsType[*cluster.LimitError](err)
	if !ok || limit.RetryAfter != 100*time.Millisecond {
		t.Fatalf("empty bucket: %v, want a retry after 100ms", err)
	}
	s.b.Advance(limit.RetryAfter)
	if got := s.takeAll(made).Budget; got != 1 {
		t.Errorf("granted %d after one interval, want 1", got)
	}
	s.b.Advance(time.Second)
	if got := s.takeAll(made).Budget; got != 10 {
		t.Errorf("granted %d after one second, want 10", got)
	}
	s.b.Advance(time.Minute)
	if got := s.takeAll(made).Budget; got != 20 {
		t.Errorf("granted %d after a minute, want the burst of 20", got)
	}
}

// heldBudgetAges: what is held while the bucket refills may not be added on top of what was refilled.
func heldBudgetAges(t *testing.T, s *suite) {
	s.open(nil) // 10/s, burst 20
	made := s.active()
	granted := s.mustLease(made, 20) // 19 held
	s.b.Advance(time.Second)
	s.report(cluster.Report{ID: made.ID, Idle: 0, Unspent: 19, UnspentSince: granted.At})
	// One spent; ten were refilled while nineteen were held, so only nine come back.
	granted = s.takeAll(made)
	if granted.Budget != 19 {
		t.Errorf("granted %d, want 19", granted.Budget)
	}
	s.b.Advance(3 * time.Second)
	s.report(cluster.Report{ID: made.ID, Idle: 0, Unspent: 18, UnspentSince: granted.At})
	if got := s.takeAll(made).Budget; got != 20 {
		t.Errorf("granted %d, want no more than the burst of 20", got)
	}
}

func lateActivity(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.b.Advance(time.Minute)
	s.mustLease(made, 1)
	end := s.get(made.ID).DeadlineAt
	s.b.Advance(time.Second)
	r := s.report(cluster.Report{ID: made.ID, Idle: 30 * time.Second}) // older than what is known
	if got := s.get(made.ID); !got.DeadlineAt.Equal(end) || r.Err != nil {
		t.Errorf("old activity moved the end to %v, want %v (%v)", got.DeadlineAt, end, r.Err)
	}
	s.report(cluster.Report{ID: made.ID, Idle: 250 * time.Millisecond})
	if got := s.get(made.ID).DeadlineAt; got.Sub(end) != 750*time.Millisecond {
		t.Errorf("activity 250ms ago moved the end by %v, want 750ms", got.Sub(end))
	}
}

func streamHolds(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 2 })
	held := s.active()
	s.b.Advance(time.Second)
	other := s.active()
	s.b.Advance(20 * time.Minute)
	before := s.get(held.ID)
	if r := s.report(cluster.Report{ID: held.ID, Idle: -1}); r.Err != nil || r.EndsIn != idle() {
		t.Errorf("a held stream renews to %v, %v; want %v", r.EndsIn, r.Err, idle())
	}
	if after := s.get(held.ID); !after.LastActivityAt.Equal(before.LastActivityAt) || !after.DeadlineAt.After(before.DeadlineAt) {
		t.Errorf("last activity %v -> %v, end %v -> %v; want only the end to move",
			before.LastActivityAt, after.LastActivityAt, before.DeadlineAt, after.DeadlineAt)
	}
	s.active() // at the cap: the silent one goes first
	if a, b := s.get(held.ID).Status, s.get(other.ID).Status; a != cluster.StatusEvicted || b != cluster.StatusActive {
		t.Errorf("held is %s, other is %s; want evicted, active", a, b)
	}
}

func retentionPasses(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed); err != nil {
		t.Fatal(err)
	}
	s.b.Advance(limits().Retention)
	other := s.active()
	if _, err := s.store.Terminate(t.Context(), other.ID, cluster.StatusClosed); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Get(t.Context(), made.ID); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("record past its retention: %v, want ErrNotFound", err)
	}
	if got := s.stats().ByStatus[cluster.StatusClosed]; got != 1 {
		t.Errorf("%d closed records counted, want 1", got)
	}
}

func sweepCleans(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 0 })
	for range 130 { // more than one batch
		s.active()
	}
	s.b.Advance(idle())
	kept := s.active() // its creation expires two on the way
	once := func() cluster.Swept {
		swept, err := s.store.Sweep(t.Context(), sweep)
		if err != nil {
			t.Fatalf("Sweep: %v", err)
		}
		return swept
	}
	if got := once(); len(got.Expired) != 100 || !got.More {
		t.Errorf("first sweep: %d, %v, want 100 expired and more to do", len(got.Expired), got.More)
	}
	if got := once(); len(got.Expired) != 28 || got.More {
		t.Errorf("second sweep: %d, %v, want the other 28 expired and no more", len(got.Expired), got.More)
	}
	s.b.Advance(limits().Retention)
	for range 2 {
		once()
	}
	if got := once(); len(got.Expired)+len(got.Purged) > 0 || got.More {
		t.Errorf("last sweep: %+v, want nothing", got)
	}
	stats := s.stats()
	if stats.Ended[cluster.StatusExpired] != 130 || stats.ByStatus[cluster.StatusExpired] != 0 || stats.Due != 0 {
		t.Errorf("after the sweeps: %+v", stats)
	}
	if s.get(kept.ID).Status != cluster.StatusActive {
		t.Error("a live session was swept")
	}
}
