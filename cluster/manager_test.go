package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store and replicas over it, inside a synctest bubble: time passes only when everything waits.
type world struct {
	t      *testing.T
	server *miniredis.Miniredis
	store  *faultyStore
	cfg    cluster.Config
}

// inWorld runs a test in a bubble with a real store on an embedded Redis, reached without a network.
func inWorld(t *testing.T, change func(*cluster.Config), test func(*testing.T, *world)) {
	t.Helper()
	cfg := cluster.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	synctest.Test(t, func(t *testing.T) {
		server := miniredis.NewMiniRedis()
		server.ClockTTL(true)
		t.Cleanup(server.Close)
		client := redis.NewClient(&redis.Options{
			Dialer:                   func(context.Context, string, string) (net.Conn, error) { return server.Dial() },
			MaxRetries:               -1,
			ContextTimeoutEnabled:    true,
			DisableIdentity:          true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
		t.Cleanup(func() { _ = client.Close() })
		store, err := redisstore.New(client, redisstore.Options{Config: cfg})
		if err != nil {
			t.Fatal(err)
		}
		test(t, &world{t: t, server: server, store: &faultyStore{Store: store}, cfg: cfg})
	})
}

// faultyStore is the real store, counted, and cut off on demand.
type faultyStore struct {
	cluster.Store
	mu      sync.Mutex
	away    bool
	lost    bool // calls happen, their replies are lost
	late    bool // reports are kept and their senders give up
	kept    []cluster.Report
	delay   time.Duration // of a lease, each way
	leases  int
	reports []cluster.Report
	checks  int
}

func (f *faultyStore) set(away, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away, f.lost = away, lost
}

func (f *faultyStore) Lease(ctx context.Context, c cluster.LeaseCall) (cluster.Grant, error) {
	f.mu.Lock()
	f.leases++
	away := f.away
	f.mu.Unlock()
	if away {
		return cluster.Grant{}, cluster.ErrStoreUnavailable
	}
	<-time.After(f.delay)
	grant, err := f.Store.Lease(ctx, c)
	<-time.After(f.delay)
	return grant, err
}

func (f *faultyStore) Report(ctx context.Context, reports []cluster.Report) []cluster.Renewal {
	f.mu.Lock()
	f.reports = append(f.reports, reports...)
	if f.late {
		f.kept = append(f.kept, reports...)
	}
	away, lost := f.away || f.late || ctx.Err() != nil, f.lost
	f.mu.Unlock()
	var renewals []cluster.Renewal
	if !away {
		renewals = f.Store.Report(ctx, reports)
	}
	if away || lost {
		renewals = make([]cluster.Renewal, len(reports))
		for i := range renewals {
			renewals[i].Err = cluster.ErrStoreUnavailable
		}
	}
	return renewals
}

func (f *faultyStore) Check(ctx context.Context, ids []cluster.ID) []error {
	f.mu.Lock()
	f.checks += len(ids)
	f.mu.Unlock()
	return f.Store.Check(ctx, ids)
}

func (f *faultyStore) counted() (leases, reports, checks int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leases, len(f.reports), f.checks
}

// replica starts a Manager with its report loop; stop ends it cleanly.
func (w *world) replica() (m *cluster.Manager, stop func()) {
	w.t.Helper()
	m, err := cluster.NewManager(w.store, w.cfg, cluster.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
	w.t.Cleanup(stop)
	return m, stop
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (w *world) session(m *cluster.Manager) (cluster.Session, cluster.Token) {
	w.t.Helper()
	s, token, err := m.Create(w.t.Context(), cluster.NewSession{Upstream: "u"})
	if err != nil {
		w.t.Fatal(err)
	}
	s, err = m.Activate(w.t.Context(), s, cluster.Activation{UpstreamSession: "x", Revision: "2025-11-25"})
	if err != nil {
		w.t.Fatal(err)
	}
	return s, token
}

var use = cluster.Use{Upstream: "u"}

func (w *world) serve(m *cluster.Manager, token cluster.Token) {
	w.t.Helper()
	l, err := m.Lease(w.t.Context(), token, use)
	if err != nil {
		w.t.Fatalf("Lease: %v", err)
	}
	l.Release()
}

func TestHotSessionIsServedFromMemory(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		const rounds, perSecond = 20, 10
		for range rounds * perSecond {
			w.serve(m, token)
			w.pass(time.Second / perSecond)
		}
		leases, reports, _ := w.store.counted()
		if calls := leases + reports; calls > rounds*12/10+5 {
			t.Errorf("%d requests cost %d leases and %d reports, want about one call a second", rounds*perSecond, leases, reports)
		}
		w.pass(2 * w.cfg.ReportInterval)
		got, err := m.Get(t.Context(), s.ID)
		if err != nil || got.Requests != rounds*perSecond {
			t.Errorf("the store counted %d requests of %d (%v)", got.Requests, rounds*perSecond, err)
		}
	})
}

func TestSparseSessionCostsOneCallARequest(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		for range 5 {
			l, err := m.Lease(t.Context(), token, use)
			if err != nil {
				t.Fatal(err)
			}
			w.pass(20 * time.Millisecond)
			l.Touch() // the answer
			l.Release()
			w.pass(time.Minute)
		}
		if leases, reports, checks := w.store.counted(); leases != 5 || reports != 0 || checks != 0 {
			t.Errorf("5 sparse requests cost %d leases, %d reports, %d checks; want 5, 0, 0", leases, reports, checks)
		}
		if held := m.Held(); held != 0 {
			t.Errorf("%d sessions held although nobody uses them", held)
		}
	})
}

func TestStrictModeAsksEveryTime(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.Lease = 0 }, func(t *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		s, token := w.session(a)
		for range 7 {
			w.serve(a, token)
		}
		if leases, _, _ := w.store.counted(); leases != 7 {
			t.Errorf("7 requests asked the store %d times", leases)
		}
		if _, err := b.Terminate(t.Context(), s.ID, cluster.StatusTerminated); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Lease(t.Context(), token, use); !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("after the end elsewhere: %v, want ErrNotFound at once", err)
		}
	})
}

func TestSessionEndedElsewhereStopsWithinOneLease(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		s, token := w.session(a)
		w.serve(a, token)
		w.serve(a, token)
		stream, err := a.Lease(t.Context(), token, cluster.Use{Upstream: "u", Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Release()
		w.pass(10 * time.Second) // the stream is silent

		if _, err := b.Terminate(t.Context(), s.ID, cluster.StatusTerminated); err != nil {
			t.Fatal(err)
		}
		ended := time.Now()
		<-stream.Ended()
		if took := time.Since(ended); took > w.cfg.Lease {
			t.Errorf("the silent stream learned of the end after %v, more than a lease of %v", took, w.cfg.Lease)
		}
		if _, err := a.Lease(t.Context(), token, use); !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("request after the end: %v, want ErrNotFound", err)
		}
	})
}

func TestSessionEndedHereStopsAtOnce(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		l, err := m.Lease(t.Context(), token, use)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release()
		if _, err := m.Terminate(t.Context(), s.ID, cluster.StatusClosed); err != nil {
			t.Fatal(err)
		}
		select {
		case <-l.Ended():
		default:
			t.Error("the request in flight was not told")
		}
		if _, err := m.Lease(t.Context(), token, use); !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("next request: %v, want ErrNotFound", err)
		}
	})
}

func TestLeaseIsNotServedPastItsValidityWithoutTheStore(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		w.serve(m, token)
		w.serve(m, token) // leaves budget for the next ones
		w.pass(500 * time.Millisecond)
		w.store.set(true, false)
		w.serve(m, token)
		w.pass(w.cfg.Lease)
		if _, err := m.Lease(t.Context(), token, use); !errors.Is(err, cluster.ErrStoreUnavailable) {
			t.Errorf("without the store past the lease: %v, want ErrStoreUnavailable", err)
		}
		w.store.set(false, false)
		w.serve(m, token)
	})
}

func TestOnlyTheOwnerIsServedFromMemory(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.RequestRate = 0 }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		w.serve(m, token)
		stranger, err := cluster.NewToken()
		if err != nil {
			t.Fatal(err)
		}
		stranger.ID = token.ID
		for name, attempt := range map[string]struct {
			token cluster.Token
			use   cluster.Use
		}{
			"wrong secret":    {stranger, use},
			"wrong upstream":  {token, cluster.Use{Upstream: "other"}},
			"wrong principal": {token, cluster.Use{Upstream: "u", Principal: "p"}},
		} {
			if _, err := m.Lease(t.Context(), attempt.token, attempt.use); !errors.Is(err, cluster.ErrNotFound) {
				t.Errorf("%s: %v, want ErrNotFound", name, err)
			}
		}
		leases, _, _ := w.store.counted()
		w.serve(m, token)
		if after, _, _ := w.store.counted(); after != leases {
			t.Error("a stranger's attempt cost the owner its lease")
		}
	})
}

func TestUnknownTokensLeaveNothingBehind(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		for range 100 {
			token, err := cluster.NewToken()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Lease(t.Context(), token, use); !errors.Is(err, cluster.ErrNotFound) {
				t.Fatal(err)
			}
		}
		if held := m.Held(); held != 0 {
			t.Errorf("%d unknown sessions are held", held)
		}
		if keys := w.server.Keys(); len(keys) != 0 {
			t.Errorf("unknown tokens made keys: %v", keys)
		}
	})
}

func TestRequestInFlightKeepsItsSessionAlive(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.IdleTimeout = 10 * time.Second }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		l, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", PendingKey: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		got, err := m.Get(t.Context(), s.ID)
		if err != nil || got.Status != cluster.StatusActive || got.Pending != 1 {
			t.Errorf("with a request in flight: %s, %d pending, %v; want active, 1", got.Status, got.Pending, err)
		}
		l.Release()
		w.pass(2 * time.Second)
		if got, err = m.Get(t.Context(), s.ID); err != nil || got.Pending != 0 {
			t.Errorf("after its end: %d pending, %v; want 0", got.Pending, err)
		}
		w.pass(13 * time.Second)
		if got, err = m.Get(t.Context(), s.ID); err != nil || got.Status != cluster.StatusExpired {
			t.Errorf("idle afterwards: %s, %v; want expired", got.Status, err)
		}
	})
}

func TestOpenStreamKeepsItsSessionAlive(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.IdleTimeout = 10 * time.Second }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		l, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		opened, err := m.Get(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		got, err := m.Get(t.Context(), s.ID)
		if err != nil || got.Status != cluster.StatusActive || !got.LastActivityAt.Equal(opened.LastActivityAt) {
			t.Errorf("with a silent stream: %s, last activity moved by %v, %v; want active, 0s",
				got.Status, got.LastActivityAt.Sub(opened.LastActivityAt), err)
		}
		if _, reports, _ := w.store.counted(); reports > 15 {
			t.Errorf("a silent minute cost %d reports", reports)
		}
		l.Release()
		w.pass(13 * time.Second)
		if got, err = m.Get(t.Context(), s.ID); err != nil || got.Status != cluster.StatusExpired {
			t.Errorf("idle afterwards: %s, %v; want expired", got.Status, err)
		}
	})
}

func TestActivityOfALostReportIsSentAgainCountersAreNot(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		for range 3 {
			w.serve(m, token)
		}
		fromMemory := 3 - func() int { leases, _, _ := w.store.counted(); return leases }()
		w.pass(900 * time.Millisecond)
		l, err := m.Lease(t.Context(), token, use)
		if err != nil {
			t.Fatal(err)
		}
		w.store.set(false, true) // the report happens, its reply is lost
		w.pass(time.Second)
		w.store.set(false, false)
		l.Release()
		w.pass(2 * time.Second)
		got, err := m.Get(t.Context(), s.ID)
		if err != nil || got.Requests != 4 {
			t.Errorf("the store counted %d requests of 4 (%d from memory), %v: a lost reply counted twice", got.Requests, fromMemory, err)
		}
	})
}

func TestCleanStopReportsALastTime(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.ReportInterval = 2 * time.Second }, func(t *testing.T, w *world) {
		m, stop := w.replica()
		other, _ := w.replica()
		s, token := w.session(m)
		for range 6 {
			w.serve(m, token)
		}
		stop()
		got, err := other.Get(t.Context(), s.ID)
		if err != nil || got.Requests != 6 {
			t.Errorf("after a clean stop %d requests are counted, want 6 (%v)", got.Requests, err)
		}
	})
}

func TestQuietClientIsNotStarvedByHoardedBudget(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.RequestRate = 10; c.RequestBurst = 20 }, func(_ *testing.T, w *world) {
		var replicas []*cluster.Manager
		for range 8 {
			m, _ := w.replica()
			replicas = append(replicas, m)
		}
		_, token := w.session(replicas[0])
		for i := range 200 { // 8 requests a second, over all replicas in turn
			w.serve(replicas[i%len(replicas)], token)
			w.pass(125 * time.Millisecond)
		}
	})
}

func TestRequestBoundHoldsOverAllReplicas(t *testing.T) {
	const rate, burst, window = 10, 20, 5 * time.Second
	inWorld(t, func(c *cluster.Config) { c.RequestRate = rate; c.RequestBurst = burst }, func(t *testing.T, w *world) {
		var replicas []*cluster.Manager
		for range 3 {
			m, _ := w.replica()
			replicas = append(replicas, m)
		}
		_, token := w.session(replicas[0])
		var served []time.Time
		for i := range 4000 { // 100 a second: ten times what is allowed
			if l, err := replicas[i%3].Lease(t.Context(), token, use); err == nil {
				served = append(served, time.Now())
				l.Release()
			} else if !errors.Is(err, cluster.ErrRateLimited) {
				t.Fatal(err)
			}
			w.pass(10 * time.Millisecond)
		}
		most := burst + int(rate*(window+w.cfg.Lease).Seconds())
		for i, from := range served {
			n := 0
			for _, at := range served[i:] {
				if at.Sub(from) < window {
					n++
				}
			}
			if n > most {
				t.Fatalf("%d requests within %v, the bound is %d", n, window, most)
			}
		}
		if least := int(0.8 * rate * 40); len(served) < least {
			t.Errorf("only %d requests in 40s at %d/s", len(served), rate)
		}
	})
}

func TestChangedRecordIsReadAgain(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		s, token := w.session(a)
		w.serve(a, token)
		if _, err := b.Activate(t.Context(), s, cluster.Activation{UpstreamSession: "moved"}); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			w.serve(a, token)
			w.pass(100 * time.Millisecond)
		}
		l, err := a.Lease(t.Context(), token, use)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release()
		if got := l.Session().UpstreamSession; got != "moved" {
			t.Errorf("upstream session %q after a lease validity, want the changed one", got)
		}
	})
}

func TestStopAtATickLosesNothing(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		for range 10 { // which of the two comes first is chance
			m, err := cluster.NewManager(w.store, w.cfg, cluster.Options{})
			if err != nil {
				t.Fatal(err)
			}
			s, token := w.session(m)
			for range 3 {
				w.serve(m, token)
			}
			ctx, cancel := context.WithTimeout(t.Context(), w.cfg.ReportInterval)
			if err := m.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
			cancel()
			if got, err := w.store.Get(t.Context(), s.ID); err != nil || got.Requests != 3 {
				t.Fatalf("%d requests counted after a clean stop, %v; want 3", got.Requests, err)
			}
		}
	})
}

func TestReusedRequestIDLeavesNothingPending(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		open := func() *cluster.Lease {
			l, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", PendingKey: "c:1"})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		first := open()
		w.pass(3 * time.Second) // the store knows it as pending
		second := open()
		first.Release()
		second.Release()
		w.pass(3 * time.Second)
		if got, err := m.Get(t.Context(), s.ID); err != nil || got.Pending != 0 {
			t.Errorf("%d requests pending, %v; nothing is in flight", got.Pending, err)
		}
	})
}

// One session with thousands of requests in flight must not hold up the reports of the others.
func TestManyPendingRequestsAreToldInPortions(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.RequestRate = 0 }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		leases := make([]*cluster.Lease, 450)
		for i := range leases {
			l, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", PendingKey: fmt.Sprint("c:", i)})
			if err != nil {
				t.Fatal(err)
			}
			leases[i] = l
		}
		pending := func() int {
			got, err := m.Get(t.Context(), s.ID)
			if err != nil {
				t.Fatal(err)
			}
			return got.Pending
		}
		w.pass(10 * time.Second)
		if got := pending(); got != len(leases) {
			t.Errorf("%d requests pending, want %d", got, len(leases))
		}
		for _, l := range leases {
			l.Release()
		}
		w.pass(10 * time.Second)
		if got := pending(); got != 0 {
			t.Errorf("%d requests pending after the last one ended", got)
		}
		for _, r := range w.store.reports {
			if len(r.Started) > 100 || len(r.Finished) > 100 {
				t.Fatalf("one report tells of %d started and %d finished requests", len(r.Started), len(r.Finished))
			}
		}
	})
}

func TestAbandonedSessionsAreCleanedUp(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.IdleTimeout, c.Retention = 10*time.Second, 20*time.Second }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		for range 250 {
			w.session(m)
		}
		w.pass(30 * time.Second)
		stats, err := m.Stats(t.Context())
		if err != nil || stats.ByStatus[cluster.StatusActive] != 0 || stats.Ended[cluster.StatusExpired] != 250 {
			t.Errorf("abandoned sessions: %+v, %v; want 250 expired", stats, err)
		}
		w.pass(time.Minute)
		if keys := w.server.Keys(); len(keys) != 1 { // the counts
			t.Errorf("%d keys left: %.5v", len(keys), keys)
		}
	})
}

func TestStreamLearnsOfTheEndWithinOneLease(t *testing.T) {
	for _, lease := range []time.Duration{1300 * time.Millisecond, 1500 * time.Millisecond, 2 * time.Second, 3 * time.Second} {
		for _, offset := range []time.Duration{0, 330 * time.Millisecond, 990 * time.Millisecond} {
			inWorld(t, func(c *cluster.Config) { c.Lease = lease }, func(t *testing.T, w *world) {
				a, _ := w.replica()
				b, _ := w.replica()
				s, token := w.session(b)
				w.pass(offset)
				l, err := a.Lease(t.Context(), token, cluster.Use{Upstream: "u", Stream: true})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Release()
				w.pass(5*time.Second + offset/2)
				if _, err := b.Terminate(t.Context(), s.ID, cluster.StatusTerminated); err != nil {
					t.Fatal(err)
				}
				ended := time.Now()
				<-l.Ended()
				if took := time.Since(ended); took > lease {
					t.Errorf("lease %v: the stream outlived its session by %v", lease, took)
				}
			})
		}
	}
}
