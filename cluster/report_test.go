package cluster_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

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

func TestManyPendingRequestsAreToldInPortions(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.RequestRate, c.MaxPending = 0, 0 }, func(t *testing.T, w *world) {
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
