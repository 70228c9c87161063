package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func createMakesInitializing(t *testing.T, s *suite) {
	s.open(nil)
	made := s.create()
	if made.Status != cluster.StatusInitializing || made.Version != 1 {
		t.Errorf("status %s, version %d; want initializing, 1", made.Status, made.Version)
	}
	if made.CreatedAt.IsZero() || !made.CreatedAt.Equal(made.LastActivityAt) {
		t.Errorf("created %v, last activity %v; want the same moment", made.CreatedAt, made.LastActivityAt)
	}
	if got := made.DeadlineAt.Sub(made.CreatedAt); got != limits().InitializeTimeout {
		t.Errorf("ends %v after its creation, want the initialize timeout", got)
	}
	if diff := cmp.Diff(made.Session, s.get(made.ID)); diff != "" {
		t.Errorf("Get differs from Create (-create +get):\n%s", diff)
	}
	if _, err := s.lease(made, 1); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("lease of an initializing session: %v, want ErrNotFound", err)
	}
}

func createRepeated(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 1; c.EvictMinIdle = time.Hour })
	made := s.create()
	created, err := s.store.Create(t.Context(), creation(made.token))
	again := created.Session
	if err != nil {
		t.Fatalf("repeated create at the cap: %v", err)
	}
	if diff := cmp.Diff(made.Session, again); diff != "" {
		t.Errorf("repeated create differs (-first +second):\n%s", diff)
	}
	if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusTerminated); err != nil {
		t.Fatal(err)
	}
	if created, err = s.store.Create(t.Context(), creation(made.token)); err != nil || created.Session.Status != cluster.StatusTerminated {
		t.Errorf("create repeated after the end: status %s, error %v; want terminated", created.Session.Status, err)
	}
	if stats := s.stats(); stats.Created != 1 {
		t.Errorf("counted %d creations of one session", stats.Created)
	}
}

func createRefusesTakenID(t *testing.T, s *suite) {
	s.open(nil)
	made := s.create()
	other := s.token()
	other.ID = made.ID
	if _, err := s.store.Create(t.Context(), creation(other)); err == nil {
		t.Error("an id was given away twice")
	}
	if got := s.get(made.ID); got.Version != made.Version {
		t.Error("the refused create changed the session")
	}
}

func createEvicts(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 3 })
	first, second, third := s.active(), s.active(), s.active()
	s.settle()
	s.mustLease(first, 1) // now the second is the least recently used
	fourth := s.active()
	for k, want := range map[*known]cluster.Status{
		&first: cluster.StatusActive, &second: cluster.StatusEvicted, &third: cluster.StatusActive, &fourth: cluster.StatusActive,
	} {
		if got := s.get(k.ID).Status; got != want {
			t.Errorf("session %s is %s, want %s", k.ID, got, want)
		}
	}
	if _, err := s.lease(second, 1); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("lease of the evicted session: %v", err)
	}
	if stats := s.stats(); stats.ByStatus[cluster.StatusActive] != 3 || stats.Ended[cluster.StatusEvicted] != 1 {
		t.Errorf("counts after the eviction: %+v", stats)
	}
}

// settle lets the store's clock move on by a millisecond, so that what follows is later than what was.
func (s *suite) settle() {
	if s.b.Advance != nil {
		s.b.Advance(time.Millisecond)
		return
	}
	// The clock is real: ask for the time until it has moved.
	first, err := s.store.List(s.t.Context(), cluster.Query{Limit: 1})
	for err == nil {
		var next cluster.Page
		if next, err = s.store.List(s.t.Context(), cluster.Query{Limit: 1}); next.Now.Sub(first.Now) >= 2*time.Millisecond {
			return
		}
	}
	s.t.Fatalf("waiting for the store's clock: %v", err)
}

// capHolds creates from many goroutines at once, far beyond the cap.
func capHolds(t *testing.T, s *suite) {
	const most, workers, each = 40, 8, 15
	s.open(func(c *cluster.Config) { c.MaxSessions = most })
	errs := make(chan error, workers)
	for range workers {
		go func() {
			var err error
			for range each {
				if err == nil {
					_, err = s.store.Create(t.Context(), cluster.Creation{NewSession: cluster.NewSession{Upstream: "u"}})
				}
			}
			errs <- err
		}()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Errorf("create: %v", err)
		}
		if live := s.stats().ByStatus[cluster.StatusInitializing]; live > most {
			t.Errorf("%d live sessions, the cap is %d", live, most)
		}
	}
	stats := s.stats()
	if stats.Created != workers*each || stats.Created-stats.Ended[cluster.StatusEvicted] != stats.ByStatus[cluster.StatusInitializing] {
		t.Errorf("created %d, evicted %d, live %d: they do not add up", stats.Created, stats.Ended[cluster.StatusEvicted], stats.ByStatus[cluster.StatusInitializing])
	}
}

func createRefuses(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 2; c.EvictMinIdle = time.Minute })
	first, second := s.active(), s.active()
	_, err := s.store.Create(t.Context(), creation(s.token()))
	limit, ok := errors.AsType[*cluster.LimitError](err)
	if !ok || !errors.Is(err, cluster.ErrCapacity) {
		t.Fatalf("create at the cap: %v, want a LimitError that is ErrCapacity", err)
	}
	if limit.Limit != "max_sessions" || limit.RetryAfter <= 0 || limit.RetryAfter > time.Minute {
		t.Errorf("refused by %s, retry after %v; want max_sessions and at most a minute", limit.Limit, limit.RetryAfter)
	}
	if a, b := s.get(first.ID), s.get(second.ID); a.Status != cluster.StatusActive || b.Status != cluster.StatusActive {
		t.Error("a refused create ended a session")
	}
	if stats := s.stats(); stats.Created != 2 {
		t.Errorf("a refused create was counted: %d", stats.Created)
	}
}

func createReachesLoweredCap(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 6 })
	for range 6 {
		s.active()
	}
	s.reopen(func(c *cluster.Config) { c.MaxSessions = 4 })
	// A create that ends two and adds one takes the excess down by one, and so does one that ends two and is refused.
	for range 3 {
		if _, err := s.store.Create(t.Context(), creation(s.token())); err != nil && !errors.Is(err, cluster.ErrCapacity) {
			t.Fatal(err)
		}
	}
	if got := s.stats(); got.ByStatus[cluster.StatusActive]+got.ByStatus[cluster.StatusInitializing] > 4 {
		t.Errorf("%+v live sessions, the cap is 4", got.ByStatus)
	}
}

// reopen opens a second store with other limits on the data of the first.
func (s *suite) reopen(change func(*cluster.Config)) {
	s.t.Helper()
	cfg := limits()
	change(&cfg)
	s.store = s.b.Reopen(s.t, cfg)
}

func longStrings(t *testing.T, s *suite) {
	s.open(nil)
	long := func(c string) string { return strings.Repeat(c, 200) }
	token := s.token()
	created, err := s.store.Create(t.Context(), cluster.Creation{
		Token:      token,
		NewSession: cluster.NewSession{Upstream: "u", Endpoint: "http://" + long("e"), ClientName: long("n"), ClientVersion: long("v")},
	})
	if err != nil {
		t.Fatal(err)
	}
	made := created.Session
	ch := change(made, "writer")
	ch.UpstreamSession = long("x")
	if _, err := s.store.Update(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	grant, err := s.store.Lease(t.Context(), cluster.LeaseCall{ID: made.ID, Digest: token.Digest(), Upstream: "u", Want: 1})
	if err != nil {
		t.Fatal(err)
	}
	got := grant.Session
	if got.Endpoint != "http://"+long("e") || got.ClientName != long("n") || got.ClientVersion != long("v") || got.UpstreamSession != long("x") {
		t.Errorf("long strings came back changed: %+v", got)
	}
	ended, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed)
	if err != nil || ended.UpstreamSession != long("x") {
		t.Errorf("terminate lost the upstream's session id: %q, %v", ended.UpstreamSession, err)
	}
}

func updateActivates(t *testing.T, s *suite) {
	s.open(nil)
	made := s.create()
	got, err := s.store.Update(t.Context(), change(made.Session, "writer"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != cluster.StatusActive || got.Version != 2 || got.UpstreamSession != "upstream-session" || got.Revision != "2025-11-25" {
		t.Errorf("activated session: %+v", got)
	}
	if want := got.LastActivityAt.Add(limits().IdleTimeout + limits().ReportSlack); !got.DeadlineAt.Equal(want) {
		t.Errorf("ends at %v, want idle timeout and slack after its last activity: %v", got.DeadlineAt, want)
	}
	stats := s.stats()
	if stats.ByStatus[cluster.StatusInitializing] != 0 || stats.ByStatus[cluster.StatusActive] != 1 {
		t.Errorf("counts after activation: %+v", stats.ByStatus)
	}
}

// updateShortens: what replaces a long string is what counts, and so is nothing.
func updateShortens(t *testing.T, s *suite) {
	s.open(nil)
	made := s.create()
	for i, want := range []string{strings.Repeat("x", 100), "short", strings.Repeat("y", 100), ""} {
		c := change(made.Session, fmt.Sprint("writer", i))
		c.UpstreamSession = want
		changed, err := s.store.Update(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		made.Session = changed
		if got := s.get(made.ID).UpstreamSession; got != want || changed.UpstreamSession != want {
			t.Errorf("upstream session %q, then %q; want %q", changed.UpstreamSession, got, want)
		}
	}
}

func updateRepeated(t *testing.T, s *suite) {
	s.open(nil)
	made := s.create()
	first, err := s.store.Update(t.Context(), change(made.Session, "writer"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.store.Update(t.Context(), change(made.Session, "writer"))
	if err != nil {
		t.Fatalf("repeated update: %v", err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("repeated update differs (-first +second):\n%s", diff)
	}
}

func updateConflicts(t *testing.T, s *suite) {
	s.open(nil)
	made := s.create()
	if _, err := s.store.Update(t.Context(), change(made.Session, "one")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Update(t.Context(), change(made.Session, "other")); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("second writer: %v, want ErrConflict", err)
	}
}

func updateOfEnded(t *testing.T, s *suite) {
	s.open(nil)
	made := s.create()
	if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusFailed); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Update(t.Context(), change(s.get(made.ID), "writer")); !errors.Is(err, cluster.ErrIllegalTransition) {
		t.Errorf("update of an ended session: %v, want ErrIllegalTransition", err)
	}
}

func terminateEnds(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	got, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != cluster.StatusClosed || got.EndedAt.IsZero() || got.Version != made.Version+1 {
		t.Errorf("ended session: %+v", got)
	}
	if want := got.EndedAt.Add(limits().Retention); !got.DeadlineAt.Equal(want) {
		t.Errorf("purged at %v, want %v", got.DeadlineAt, want)
	}
	if diff := cmp.Diff(got, s.get(made.ID)); diff != "" {
		t.Errorf("Get differs from Terminate (-terminate +get):\n%s", diff)
	}
	if _, err := s.lease(made, 1); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("lease of an ended session: %v, want ErrNotFound", err)
	}
	if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusActive); !errors.Is(err, cluster.ErrIllegalTransition) {
		t.Errorf("terminating as active: %v, want ErrIllegalTransition", err)
	}
}

func terminateKeepsFirst(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed); err != nil {
		t.Fatal(err)
	}
	again, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusTerminated)
	if !errors.Is(err, cluster.ErrIllegalTransition) || again.Status != cluster.StatusClosed {
		t.Errorf("second terminate: %s, %v; want closed, ErrIllegalTransition", again.Status, err)
	}
	if stats := s.stats(); stats.Ended[cluster.StatusClosed] != 1 || stats.Ended[cluster.StatusTerminated] != 0 {
		t.Errorf("one end counted as %+v", stats.Ended)
	}
}

func noRetention(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.Retention = 0 })
	made := s.active()
	if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Get(t.Context(), made.ID); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("record after the end: %v, want ErrNotFound", err)
	}
	if stats := s.stats(); stats.ByStatus[cluster.StatusClosed] != 0 || stats.Ended[cluster.StatusClosed] != 1 {
		t.Errorf("counts: %+v", stats)
	}
}

func endedRecordsBounded(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.MaxSessions = 5 })
	for range 12 {
		made := s.active()
		if _, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed); err != nil {
			t.Fatal(err)
		}
	}
	stats := s.stats()
	if stats.ByStatus[cluster.StatusClosed] != 5 || stats.Ended[cluster.StatusClosed] != 12 {
		t.Errorf("%d records kept of %d ended sessions, want 5 of 12",
			stats.ByStatus[cluster.StatusClosed], stats.Ended[cluster.StatusClosed])
	}
}

func unknownNotFound(t *testing.T, s *suite) {
	s.open(nil)
	stranger := known{token: s.token()}
	stranger.ID = stranger.token.ID
	if _, err := s.store.Get(t.Context(), stranger.ID); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if _, err := s.lease(stranger, 1); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("Lease: %v", err)
	}
	if _, err := s.store.Update(t.Context(), change(stranger.Session, "w")); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("Update: %v", err)
	}
	if _, err := s.store.Terminate(t.Context(), stranger.ID, cluster.StatusClosed); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("Terminate: %v", err)
	}
	if r := s.report(cluster.Report{ID: stranger.ID}); !errors.Is(r.Err, cluster.ErrNotFound) {
		t.Errorf("Report: %v", r.Err)
	}
	if errs := s.store.Check(t.Context(), []cluster.ID{stranger.ID}); len(errs) != 1 || !errors.Is(errs[0], cluster.ErrNotFound) {
		t.Errorf("Check: %v", errs)
	}
}
