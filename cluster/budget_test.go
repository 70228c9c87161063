package cluster_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// atOnce sends n requests at the same moment and returns how many were refused.
func (w *world) atOnce(m *cluster.Manager, token cluster.Token, n int) (refused int) {
	w.t.Helper()
	var (
		wg sync.WaitGroup
		no atomic.Int32
	)
	for range n {
		wg.Go(func() {
			l, err := m.Lease(w.t.Context(), token, use)
			if errors.Is(err, cluster.ErrRateLimited) {
				no.Add(1)
				return
			}
			if err != nil {
				w.t.Errorf("Lease: %v", err)
				return
			}
			l.Release()
		})
	}
	wg.Wait()
	return int(no.Load())
}

// Callers that ask at the same time must not each take a growing grant, and starve one another.
func TestConcurrentRequestsWithinTheBurstAreServed(t *testing.T) {
	for _, together := range []int{1, 4, 8} { // the client in the bubble has ten connections
		inWorld(t, nil, func(t *testing.T, w *world) {
			w.store.delay = time.Millisecond
			m, err := cluster.NewManager(w.store, w.cfg, cluster.Options{}) // without reports that would give back
			if err != nil {
				t.Fatal(err)
			}
			_, token := w.session(m)
			for sent := 0; sent+together <= w.cfg.RequestBurst; sent += together {
				if refused := w.atOnce(m, token, together); refused > 0 {
					t.Fatalf("%d at once: %d refused after %d requests, the burst is %d", together, refused, sent, w.cfg.RequestBurst)
				}
			}
		})
	}
}

// What one replica holds must not be what another is refused, but for the last few of a burst.
func TestBurstIsServedByReplicasInTurn(t *testing.T) {
	inWorld(t, nil, func(_ *testing.T, w *world) {
		var replicas []*cluster.Manager
		for range 3 {
			m, _ := w.replica()
			replicas = append(replicas, m)
		}
		_, token := w.session(replicas[0])
		for i := range w.cfg.RequestBurst * 95 / 100 { // no time passes
			w.serve(replicas[i%len(replicas)], token)
		}
	})
}

// A report loop that is held up leaves old budget behind, which must not spoil what is granted later.
func TestHeldUpReportsCostNoRequests(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, err := cluster.NewManager(w.store, w.cfg, cluster.Options{}) // no Run at all
		if err != nil {
			t.Fatal(err)
		}
		_, token := w.session(m)
		for range 40 {
			w.serve(m, token)
		}
		w.pass(w.cfg.Lease + 100*time.Millisecond)
		before, _, _ := w.store.counted()
		for range 10 {
			for range 10 {
				w.serve(m, token) // 10/s, allowed are 50/s
			}
			w.pass(time.Second)
		}
		if after, _, _ := w.store.counted(); after-before > 60 {
			t.Errorf("100 requests cost %d calls", after-before)
		}
	})
}

func TestBatchIsAdmittedWholeOrNotAtAll(t *testing.T) {
	for _, lease := range []time.Duration{0, 3 * time.Second} {
		inWorld(t, func(c *cluster.Config) { c.RequestRate, c.RequestBurst, c.Lease = 1, 10, lease }, func(t *testing.T, w *world) {
			m, _ := w.replica()
			s, token := w.session(m)
			batch := func(n int) error {
				l, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", Requests: n})
				if err == nil {
					l.Release()
				}
				return err
			}
			if err := batch(7); err != nil {
				t.Fatalf("7 of a burst of 10: %v", err)
			}
			if err := batch(4); !errors.Is(err, cluster.ErrRateLimited) {
				t.Errorf("4 of the 3 that are left: %v, want ErrRateLimited", err)
			}
			if err := batch(3); err != nil {
				t.Errorf("the 3 that are left: %v", err)
			}
			err := batch(11)
			if limit, ok := errors.AsType[*cluster.LimitError](err); !ok || limit.Limit != "request_burst" || !errors.Is(err, cluster.ErrRateLimited) {
				t.Errorf("more than the burst: %v, want a LimitError that names request_burst", err)
			}
			w.pass(2 * w.cfg.ReportInterval)
			if got, err := m.Get(t.Context(), s.ID); err != nil || got.Requests != 10 {
				t.Errorf("%d requests counted, %v; want 10", got.Requests, err)
			}
		})
	}
}

func TestRefusedClientCostsTheStoreNothing(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.RequestRate, c.RequestBurst = 10, 20 }, func(t *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		served, refused := 0, 0
		for range 5000 { // 1000/s
			l, err := m.Lease(t.Context(), token, use)
			switch {
			case err == nil:
				served++
				l.Release()
			case errors.Is(err, cluster.ErrRateLimited):
				refused++
			default:
				t.Fatal(err)
			}
			w.pass(time.Millisecond)
		}
		if calls, _, _ := w.store.counted(); calls > 2*served {
			t.Errorf("%d served, %d refused: %d calls", served, refused, calls)
		}
		if served < 50 {
			t.Errorf("only %d served in 5s at 10/s", served)
		}
	})
}

// What a report gives back is worth what it is worth when it arrives, not when it was sent.
func TestReportDeliveredLateAddsNoBudget(t *testing.T) {
	const rate, burst = 50, 1000
	inWorld(t, func(c *cluster.Config) { c.RequestRate, c.RequestBurst = rate, burst }, func(t *testing.T, w *world) {
		a, stop := w.replica()
		b, _ := w.replica()
		_, token := w.session(b)
		spend := func(m *cluster.Manager, most int) (n int) {
			for ; n < most; n++ {
				l, err := m.Lease(t.Context(), token, use)
				if errors.Is(err, cluster.ErrRateLimited) {
					return n
				}
				if err != nil {
					t.Fatal(err)
				}
				l.Release()
			}
			return n
		}
		spend(a, 520) // and holds as much again
		w.store.mu.Lock()
		w.store.late = true
		w.store.mu.Unlock()
		w.pass(3 * time.Second)
		stop()
		w.store.mu.Lock()
		kept := w.store.kept
		w.store.late = false
		w.store.mu.Unlock()
		w.pass(20 * time.Second) // the bucket is full again
		n := spend(b, 5000)
		for i, r := range w.store.Store.Report(t.Context(), kept) {
			if r.Err != nil {
				t.Fatalf("late report %d: %v", i, r.Err)
			}
		}
		w.pass(w.cfg.ReportInterval) // b asks again
		n += spend(b, 5000)
		if bound := burst + int(rate*(w.cfg.Lease+w.cfg.ReportInterval).Seconds()); n > bound {
			t.Errorf("%d requests within %v, the bound is %d", n, w.cfg.ReportInterval, bound)
		}
	})
}

func TestClockThatGoesBackLocksNobodyOut(t *testing.T) {
	inWorld(t, nil, func(_ *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		for range 5 {
			w.serve(m, token)
		}
		w.server.SetTime(time.Now().Add(-time.Hour))
		w.pass(10 * time.Second)
		w.server.SetTime(time.Now().Add(-time.Hour))
		w.serve(m, token)
	})
}
