package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// wantLease asks for one request and wants a lease, or that error.
func (w *world) wantLease(m *cluster.Manager, token cluster.Token, want error, when string) {
	w.t.Helper()
	l, err := m.Lease(w.t.Context(), token, use)
	if l != nil {
		l.Release()
	}
	if !errors.Is(err, want) || (want == nil && err != nil) {
		w.t.Errorf("%s: %v, want %v", when, err, want)
	}
}

func TestKnownSessionIsServedWithoutTheStoreForTheGrace(t *testing.T) {
	for name, lease := range map[string]time.Duration{"leased": 3 * time.Second, "strict": 0} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(c *cluster.Config) { c.Lease = lease }, func(_ *testing.T, w *world) {
				m, _ := w.replica()
				_, token := w.session(m)
				w.serve(m, token)
				w.pass(10 * time.Second) // longer than any lease
				w.store.set(true, false)
				for range 39 { // until just before the end of the grace
					w.wantLease(m, token, nil, "inside the grace")
					w.pass(500 * time.Millisecond)
				}
				w.wantLease(m, token, nil, "inside the grace")
				w.pass(time.Second)
				w.wantLease(m, token, cluster.ErrStoreUnavailable, "after the grace")
				w.pass(10 * time.Minute)
				w.wantLease(m, token, cluster.ErrStoreUnavailable, "long after the grace")
				w.store.set(false, false)
				w.wantLease(m, token, nil, "when the store is back")
			})
		})
	}
}

func TestWhoIsNotKnownIsNotServedWithoutTheStore(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		other, _ := w.replica()
		s, token := w.session(m)
		w.serve(m, token)
		w.store.set(true, false)
		w.wantLease(other, token, cluster.ErrStoreUnavailable, "a session of another replica")
		guess, err := cluster.NewToken()
		if err != nil {
			t.Fatal(err)
		}
		guess.ID = s.ID
		w.pass(w.cfg.Lease)
		// The same answer as for unknown ones: nobody learns whether the session exists.
		w.wantLease(m, guess, cluster.ErrStoreUnavailable, "another secret")
		for _, foreign := range []cluster.Use{{Upstream: "v"}, {Upstream: "u", Principal: "somebody"}} {
			if _, err := m.Lease(t.Context(), token, foreign); !errors.Is(err, cluster.ErrStoreUnavailable) {
				t.Errorf("for %+v: %v, want ErrStoreUnavailable", foreign, err)
			}
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := m.Lease(gone, token, use); err == nil {
			t.Error("a caller that has left was served")
		}
	})
}

func TestEachReplicaAppliesTheLimitsAloneWithoutTheStore(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.RequestRate, c.RequestBurst, c.MaxPending = 10, 20, 3 }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		w.serve(m, token)
		w.store.set(true, false)
		w.pass(w.cfg.Lease) // what was leased before is gone, and the bucket is full again
		drain := func() (n int) {
			for {
				l, err := m.Lease(t.Context(), token, use)
				if err != nil {
					limit, ok := errors.AsType[*cluster.LimitError](err)
					if !ok || limit.Limit != "request_rate" || limit.RetryAfter <= 0 || limit.RetryAfter > 100*time.Millisecond {
						t.Fatalf("after %d: %v, want the rate limit", n, err)
					}
					return n
				}
				l.Release()
				n++
			}
		}
		if n := drain(); n != 20 {
			t.Errorf("%d requests at once, want the burst of 20", n)
		}
		w.pass(time.Second)
		if n := drain(); n != 10 {
			t.Errorf("%d requests a second later, want 10", n)
		}
		if _, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", Requests: 21}); !errors.Is(err, cluster.ErrRateLimited) {
			t.Errorf("more than the burst at once: %v", err)
		}
		w.pass(time.Second)
		for i := range 4 {
			_, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", PendingKey: fmt.Sprint("c:", i)})
			if i < 3 && err != nil || i == 3 && !errors.Is(err, cluster.ErrPendingLimited) {
				t.Errorf("request %d in flight: %v", i+1, err)
			}
		}
	})
}

func TestTheLimitGoesOnWithWhatWasLeftWhenTheStoreGoesAway(t *testing.T) {
	for name, lease := range map[string]time.Duration{"leased": 3 * time.Second, "strict": 0} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(c *cluster.Config) { c.RequestRate, c.RequestBurst, c.Lease = 10, 20, lease }, func(t *testing.T, w *world) {
				m, _ := w.replica()
				_, token := w.session(m)
				for range 12 {
					w.serve(m, token)
				}
				w.store.set(true, false)
				n := 0
				for ; n < 20; n++ {
					l, err := m.Lease(t.Context(), token, use)
					if errors.Is(err, cluster.ErrRateLimited) {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					l.Release()
				}
				if n != 8 {
					t.Errorf("%d requests at once after 12 of 20, want 8", n)
				}
				w.pass(100 * time.Millisecond)
				w.wantLease(m, token, nil, "a tenth of a second later")
				w.wantLease(m, token, cluster.ErrRateLimited, "at once again")
			})
		})
	}
}

func TestNoSessionIsServedBeyondItsMaximumAgeWithoutTheStore(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.MaxAge = time.Minute }, func(_ *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		w.pass(50 * time.Second)
		w.serve(m, token)
		w.store.set(true, false)
		for range 9 {
			w.pass(time.Second)
			w.wantLease(m, token, nil, "before the maximum age")
		}
		w.pass(time.Second)
		w.wantLease(m, token, cluster.ErrNotFound, "at the maximum age")
	})
}

func TestSessionThatMayHaveIdledOutIsNotDeclaredGoneWithoutTheStore(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.IdleTimeout = 10 * time.Second }, func(_ *testing.T, w *world) {
		m, _ := w.replica()
		_, busy := w.session(m)
		_, quiet := w.session(m)
		w.serve(m, busy)
		w.serve(m, quiet)
		w.store.set(true, false)
		for range 5 {
			w.pass(4 * time.Second)
			w.wantLease(m, busy, nil, "kept alive by its own requests")
		}
		w.wantLease(m, quiet, cluster.ErrStoreUnavailable, "without a request: another replica may know better")
	})
}

func TestWhatHappensDuringAnOutageIsReportedAfterIt(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		w.serve(m, token)
		w.pass(10 * time.Second)
		w.store.notSent = true
		w.store.set(true, false)
		held, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", PendingKey: "c:held"})
		if err != nil {
			t.Fatal(err)
		}
		for range 9 {
			l, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", PendingKey: "c:1"})
			if err != nil {
				t.Fatal(err)
			}
			w.pass(1500 * time.Millisecond) // so long that reports would have told it
			l.Release()
		}
		last := time.Now()
		w.pass(500 * time.Millisecond)
		w.store.set(false, false)
		w.pass(2 * time.Second)
		got, err := m.Get(t.Context(), s.ID)
		if err != nil || got.Requests != 11 || got.LastActivityAt.Before(last) || got.Pending != 1 {
			t.Errorf("after the outage: %d requests, last activity %v after the last, %d pending, %v; want 11, later, 1",
				got.Requests, got.LastActivityAt.Sub(last), got.Pending, err)
		}
		for _, r := range w.store.reports {
			if len(r.Finished) > 0 {
				t.Errorf("a report tells that %q are over, which no report had told to have begun", r.Finished)
			}
		}
		held.Release()
		w.pass(2 * time.Second)
		if got, err := m.Get(t.Context(), s.ID); err != nil || got.Pending != 0 {
			t.Errorf("%d pending, %v; nothing is in flight", got.Pending, err)
		}
	})
}

func TestNobodyEndsASessionBeforeItsActivityIsReportedAfterAnOutage(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.IdleTimeout = 10 * time.Second }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		w.serve(m, token)
		w.server.SetError("LOADING Redis is loading the dataset in memory")
		for range 5 {
			w.pass(5 * time.Second)
			w.wantLease(m, token, nil, "during the outage")
		}
		// The store is back long after the end of the session that it knows of, and just after a report was tried.
		w.pass(10 * time.Millisecond)
		w.server.SetError("")
		for range 20 {
			swept, err := w.store.Sweep(t.Context(), cluster.SweepCall{Limit: 10})
			if err != nil || len(swept.Expired) > 0 {
				t.Fatalf("swept %d sessions, %v", len(swept.Expired), err)
			}
			if errs := w.store.Store.Check(t.Context(), []cluster.ID{s.ID}); errs[0] != nil {
				t.Fatalf("checked: %v", errs[0])
			}
			w.pass(200 * time.Millisecond)
		}
		w.wantLease(m, token, nil, "after the outage")
		if got, err := m.Get(t.Context(), s.ID); err != nil || got.Status != cluster.StatusActive {
			t.Errorf("%s, %v; want active", got.Status, err)
		}
	})
}

func TestSessionsOfAStoreThatComesBackEmptyAreNotFound(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		l, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		w.server.SetError("LOADING Redis is loading the dataset in memory")
		w.pass(5 * time.Second)
		w.wantLease(m, token, nil, "during the outage")
		w.server.FlushAll()
		w.server.SetError("")
		w.pass(2 * time.Second)
		if !hasEnded(l) || !l.SessionEnded() {
			t.Error("the open stream has not been told")
		}
		w.wantLease(m, token, cluster.ErrNotFound, "after the next report")
	})
}

func TestStreamsDoNotOutliveTheGrace(t *testing.T) {
	for name, change := range map[string]func(*cluster.Config){
		"by default": nil,
		"strict":     func(c *cluster.Config) { c.Lease = 0 },
		"no grace":   func(c *cluster.Config) { c.OutageGrace = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, change, func(t *testing.T, w *world) {
				m, _ := w.replica()
				_, token := w.session(m)
				open := func() *cluster.Lease {
					t.Helper()
					l, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", Stream: true})
					if err != nil {
						t.Fatal(err)
					}
					return l
				}
				stream := open()
				watch := stream.Watch()
				w.pass(time.Minute)
				if hasEnded(stream) {
					t.Fatal("ended although the store is there")
				}
				w.store.set(true, false)
				w.pass(w.cfg.OutageGrace - 3*time.Second)
				if w.cfg.OutageGrace > 0 && hasEnded(stream) {
					t.Error("ended inside the grace")
				}
				w.pass(13 * time.Second)
				if !hasEnded(stream) || hasEnded(watch) || stream.SessionEnded() {
					t.Errorf("after the grace: the stream has ended %v, its watch %v, the session %v; want true, false, false",
						hasEnded(stream), hasEnded(watch), stream.SessionEnded())
				}
				stream.Release()
				w.store.set(false, false)
				again := open()
				w.pass(time.Minute)
				if hasEnded(again) {
					t.Error("a new stream ended although the store is there")
				}
				again.Release()
				watch.Release()
			})
		})
	}
}

// counting is an Observer that counts.
type counting struct {
	mu       sync.Mutex
	outcomes map[cluster.LeaseOutcome]int
	begun    int
	lengths  []time.Duration
}

func (c *counting) LeaseDone(o cluster.LeaseOutcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outcomes == nil {
		c.outcomes = make(map[cluster.LeaseOutcome]int)
	}
	c.outcomes[o]++
}
func (c *counting) ReportDone(int, int, int, time.Duration) {}
func (c *counting) OutageBegan()                            { c.begun++ }
func (c *counting) OutageEnded(length time.Duration)        { c.lengths = append(c.lengths, length) }

func TestAnOutageIsToldOnceAtItsBeginningAndOnceAtItsEnd(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		var (
			log  bytes.Buffer
			seen counting
		)
		m, stop := w.replicaWith(cluster.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Observer: &seen})
		_, one := w.session(m)
		_, two := w.session(m)
		w.serve(m, one)
		w.serve(m, two)
		w.pass(4*time.Second + 300*time.Millisecond)
		log.Reset()

		w.store.set(true, false)
		w.wantLease(m, one, nil, "one failed call")
		w.store.set(false, false)
		w.pass(5 * time.Second)
		if o, isAway := m.Outage(); isAway || log.Len() > 0 || seen.begun > 0 {
			t.Errorf("after one failed call: away %v %+v\n%s", isAway, o, &log)
		}

		begun := time.Now()
		w.store.set(true, false)
		for range 10 {
			w.wantLease(m, one, nil, "during the outage")
			w.wantLease(m, two, nil, "during the outage")
			w.pass(time.Second)
		}
		if o, isAway := m.Outage(); !isAway || !o.Since.Equal(begun) || o.Sessions != 2 || o.Requests != 20 {
			t.Errorf("away %v, %+v; want 2 sessions and 20 requests since %v", isAway, o, begun)
		}
		w.store.set(false, false)
		w.pass(10 * time.Second)
		if _, isAway := m.Outage(); isAway {
			t.Error("away although it is back")
		}
		stop()
		synctest.Wait()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "the store is away") || !strings.Contains(lines[1], "the store is back") ||
			!strings.Contains(lines[1], "away=10.7s") || !strings.Contains(lines[1], "sessions=2 requests=20") {
			t.Errorf("log:\n%s", &log)
		}
		if seen.begun != 1 || len(seen.lengths) != 1 || seen.lengths[0] < 10*time.Second || seen.lengths[0] > 11*time.Second || seen.outcomes[cluster.LeaseGrace] != 21 {
			t.Errorf("observed %d outages of %v, outcomes %v", seen.begun, seen.lengths, seen.outcomes)
		}
	})
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take returns what was logged since the last time.
func (b *logBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

func TestTheEndOfTheGraceIsToldOnce(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.OutageGrace = 10 * time.Second }, func(t *testing.T, w *world) {
		var log logBuffer
		m, _ := w.replicaWith(cluster.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		_, token := w.session(m)
		w.serve(m, token)
		for range 2 { // outages
			log.take()
			w.store.set(true, false)
			w.pass(9 * time.Second)
			if text := log.take(); strings.Contains(text, "outage_grace is over") {
				t.Errorf("told too early:\n%s", text)
			}
			w.pass(time.Minute)
			if text := log.take(); strings.Count(text, "level=WARN") != 1 || strings.Count(text, "outage_grace is over") != 1 || !strings.Contains(text, "outage_grace=10s") {
				t.Errorf("after the grace:\n%s", text)
			}
			w.store.set(false, false)
			w.pass(10 * time.Second)
		}
	})
}

func TestWithoutAGraceNothingIsSaidAboutServingOn(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.OutageGrace = 0 }, func(t *testing.T, w *world) {
		var log logBuffer
		m, _ := w.replicaWith(cluster.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		_, token := w.session(m)
		w.serve(m, token)
		log.take()
		w.store.set(true, false)
		w.pass(time.Minute)
		text := log.take()
		if strings.Count(text, "\n") != 1 || !strings.Contains(text, "the store is away: sessions are refused") {
			t.Errorf("at the beginning:\n%s", text)
		}
		w.store.set(false, false)
		w.pass(10 * time.Second)
		if text := log.take(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "the store is back") {
			t.Errorf("at the end:\n%s", text)
		}
	})
}

// A replica is ready as long as it serves the sessions that it knows: both end at the same moment, whatever was asked of it, and when.
func TestAReplicaIsInTheGraceAsLongAsItServesWhatIsInUse(t *testing.T) {
	for name, c := range map[string]struct {
		lease time.Duration
		alive time.Duration // between the last report of a session and the outage
	}{
		"the store goes away just after a report":  {3 * time.Second, 10 * time.Millisecond},
		"the store goes away just before a report": {3 * time.Second, 990 * time.Millisecond},
		"strict": {0, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(cfg *cluster.Config) { cfg.OutageGrace, cfg.Lease, cfg.RequestRate = 8*time.Second, c.lease, 0 }, func(t *testing.T, w *world) {
				m, _ := w.replica()
				_, one := w.session(m)
				_, two := w.session(m)
				ask := func(token cluster.Token) bool {
					l, err := m.Lease(t.Context(), token, use)
					if err == nil {
						l.Release()
					}
					return err == nil
				}
				for range 40 { // both in constant use
					ask(one)
					ask(two)
					w.pass(100 * time.Millisecond)
				}
				w.pass(c.alive)
				ask(two)
				_, three := w.session(m) // which the store confirms later than the others
				ask(three)
				w.store.set(true, false)
				begun := time.Now()
				for ask(one) && ask(two) {
					if !m.InGrace() {
						t.Fatalf("not in the grace %v after the beginning, although sessions are served", time.Since(begun))
					}
					w.pass(10 * time.Millisecond)
				}
				length := time.Since(begun)
				if m.InGrace() {
					t.Errorf("still in the grace %v after the beginning, although a session is refused", length)
				}
				if length < 6*time.Second || length > 8*time.Second {
					t.Errorf("the grace was %v, want 8s after the last report", length)
				}
				w.pass(time.Minute)
				if m.InGrace() {
					t.Error("in the grace a minute later")
				}
				w.store.set(false, false)
				w.pass(5 * time.Second)
				if !m.InGrace() || !ask(one) {
					t.Errorf("when the store is back: in the grace %v, served %v", m.InGrace(), ask(one))
				}
			})
		})
	}
}

// What is used hardly ever is refused before a replica is: its records are older. Who serves nothing at all is ready for the grace.
func TestTheGraceOfAReplicaDoesNotDependOnSessionsThatAreHardlyUsed(t *testing.T) {
	inWorld(t, func(cfg *cluster.Config) { cfg.OutageGrace = 30 * time.Second }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		w.serve(m, token)
		w.pass(25 * time.Second)
		w.store.set(true, false)
		w.pass(4 * time.Second)
		w.wantLease(m, token, nil, "inside its own grace")
		w.pass(2 * time.Second)
		w.wantLease(m, token, cluster.ErrStoreUnavailable, "after its own grace")
		w.pass(22 * time.Second)
		if !m.InGrace() {
			t.Error("not in the grace 28s after the beginning")
		}
		w.pass(2 * time.Second)
		if m.InGrace() {
			t.Error("in the grace 30s after the beginning")
		}
	})
}

func TestAnOutageIsKnownFromTheFirstFaultUntilAfterItsEnd(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		w.serve(m, token)
		w.pass(10 * time.Second)
		if m.InOutage(time.Now()) {
			t.Error("in an outage before it")
		}
		w.store.set(true, false)
		w.wantLease(m, token, nil, "without the store")
		if !m.InOutage(time.Now()) {
			t.Error("not in an outage after the first fault")
		}
		w.pass(10 * time.Second)
		during := time.Now()
		w.store.set(false, false)
		w.pass(10 * time.Second)
		if !m.InOutage(during) || m.InOutage(time.Now()) {
			t.Errorf("afterwards: a call during the outage %v, one since %v; want true, false", m.InOutage(during), m.InOutage(time.Now()))
		}
	})
}
