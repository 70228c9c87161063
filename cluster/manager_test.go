package cluster_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

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

func TestARecordIsToldOnlyWhenItHasChanged(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.Lease = 0 }, func(t *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		s, token := w.session(a)
		read := func(m *cluster.Manager) cluster.Session {
			l, err := m.Lease(t.Context(), token, use)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Release()
			return l.Session()
		}
		first := read(a)
		if again := read(a); again != first {
			t.Errorf("a record that has not changed: %+v, want %+v", again, first)
		}
		if _, err := b.Activate(t.Context(), s, cluster.Activation{UpstreamSession: "moved"}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := read(a).UpstreamSession; got != "moved" {
				t.Errorf("upstream session %q, want the changed one", got)
			}
		}
		if w.store.told != 2 {
			t.Errorf("4 leases were told the record %d times, want once and once more when it had changed", w.store.told)
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
	inWorld(t, func(c *cluster.Config) { c.OutageGrace = 0 }, func(t *testing.T, w *world) {
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
		if keys := w.server.Keys(); len(keys) != 1 { // the replica's own sign of life
			t.Errorf("unknown tokens made keys: %v", keys)
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

// One session with thousands of requests in flight must not hold up the reports of the others.
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
