package cluster_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// pendingUse is a request that expects an answer.
func pendingUse(key string) cluster.Use { return cluster.Use{Upstream: "u", PendingKey: key} }

// capped turns on a small cap of requests in flight, and the rate off.
func capped(most int) func(*cluster.Config) {
	return func(c *cluster.Config) { c.MaxPending, c.RequestRate = most, 0 }
}

// open leases for n requests that stay in flight, named by key and number.
func (w *world) open(m *cluster.Manager, token cluster.Token, key string, n int) []*cluster.Lease {
	w.t.Helper()
	leases := make([]*cluster.Lease, 0, n)
	for i := range n {
		l, err := m.Lease(w.t.Context(), token, pendingUse(fmt.Sprintf("%s-%d", key, i)))
		if err != nil {
			w.t.Fatalf("request %s-%d: %v", key, i, err)
		}
		w.t.Cleanup(l.Release)
		leases = append(leases, l)
	}
	return leases
}

func (w *world) mustLease(m *cluster.Manager, token cluster.Token, use cluster.Use) *cluster.Lease {
	w.t.Helper()
	l, err := m.Lease(w.t.Context(), token, use)
	if err != nil {
		w.t.Fatalf("request %s: %v", use.PendingKey, err)
	}
	w.t.Cleanup(l.Release)
	return l
}

func (w *world) wantPendingLimited(m *cluster.Manager, token cluster.Token, when string) {
	w.t.Helper()
	l, err := m.Lease(w.t.Context(), token, pendingUse("one more"))
	limit, ok := errors.AsType[*cluster.LimitError](err)
	if !ok || !errors.Is(err, cluster.ErrPendingLimited) || limit.Limit != "max_pending" || limit.RetryAfter <= 0 {
		w.t.Errorf("%s: %v, want ErrPendingLimited by max_pending", when, err)
	}
	if l != nil {
		l.Release()
	}
}

func (w *world) wantAdmitted(m *cluster.Manager, token cluster.Token, when string) {
	w.t.Helper()
	l, err := m.Lease(w.t.Context(), token, pendingUse("one more"))
	if err != nil {
		w.t.Errorf("%s: %v", when, err)
		return
	}
	l.Release()
}

// wantStored fails the test unless the store has so many requests in flight.
func (w *world) wantStored(id cluster.ID, n int, when string) {
	w.t.Helper()
	got, err := w.store.Get(w.t.Context(), id)
	if err != nil || got.Pending != n {
		w.t.Errorf("%s: the store has %d requests in flight, %v; want %d", when, got.Pending, err, n)
	}
}

func release(leases []*cluster.Lease) {
	for _, l := range leases {
		l.Release()
	}
}

func TestPendingCapIsExactAtOneReplica(t *testing.T) {
	for name, strict := range map[string]bool{"with leases": false, "in strict mode": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(c *cluster.Config) {
				capped(5)(c)
				if strict {
					c.Lease = 0
				}
			}, func(_ *testing.T, w *world) {
				m, _ := w.replica()
				s, token := w.session(m)
				leases := w.open(m, token, "k", 5)
				for range 5 { // young, then known to the store, then for long
					w.wantPendingLimited(m, token, "at the cap")
					leases[0].Release()
					leases[0].Release() // once is enough
					w.wantAdmitted(m, token, "after one was over")
					leases = append(leases[1:], w.open(m, token, fmt.Sprint("again ", time.Now()), 1)...)
					w.wantPendingLimited(m, token, "at the cap again")
					w.pass(1700 * time.Millisecond)
				}
				w.wantStored(s.ID, 5, "all are over an interval old")
				release(leases)
				w.pass(2 * w.cfg.ReportInterval)
				w.wantStored(s.ID, 0, "all are over")
			})
		})
	}
}

func TestPendingCapIsExactForManyCallersAtOnce(t *testing.T) {
	for name, key := range map[string]func(int) string{
		"each with its own id": func(i int) string { return fmt.Sprint("c", i) },
		"all with one id":      func(int) string { return "c1" },
	} {
		t.Run(name, func(t *testing.T) {
			const most, callers = 7, 40
			inWorld(t, capped(most), func(t *testing.T, w *world) {
				m, _ := w.replica()
				_, token := w.session(m)
				w.store.delay = 5 * time.Millisecond // all of them ask before the first is answered
				for round := range 3 {
					var (
						mu      sync.Mutex
						leases  []*cluster.Lease
						refused int
						wg      sync.WaitGroup
					)
					for i := range callers {
						wg.Go(func() {
							l, err := m.Lease(t.Context(), token, pendingUse(key(i)))
							mu.Lock()
							defer mu.Unlock()
							switch {
							case err == nil:
								leases = append(leases, l)
							case errors.Is(err, cluster.ErrPendingLimited):
								refused++
							default:
								t.Errorf("request: %v", err)
							}
						})
					}
					wg.Wait()
					if len(leases) != most || refused != callers-most {
						t.Errorf("round %d: %d admitted, %d refused; want %d admitted", round, len(leases), refused, most)
					}
					w.pass(3 * w.cfg.ReportInterval)
					w.wantPendingLimited(m, token, "after some reports")
					release(leases)
					w.wantAdmitted(m, token, "when all are over")
					w.pass(3 * w.cfg.ReportInterval)
				}
			})
		})
	}
}

func TestNotificationsPassAtThePendingCap(t *testing.T) {
	inWorld(t, capped(2), func(t *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		_, token := w.session(a)
		w.open(a, token, "k", 2)
		w.pass(2 * w.cfg.ReportInterval)
		for _, m := range []*cluster.Manager{a, b} {
			w.wantPendingLimited(m, token, "a request at the cap")
			w.serve(m, token) // has no key
			stream, err := m.Lease(t.Context(), token, cluster.Use{Upstream: "u", Stream: true})
			if err != nil {
				t.Errorf("a stream at the cap: %v", err)
				continue
			}
			stream.Release()
		}
	})
}

func TestPendingOfOtherReplicasCountsOnceReported(t *testing.T) {
	inWorld(t, capped(4), func(_ *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		c, _ := w.replica()
		s, token := w.session(a)
		there := w.open(a, token, "a", 3)
		w.pass(w.cfg.ReportInterval + 100*time.Millisecond)
		w.serve(b, token) // b holds a lease, by what the store knew then
		w.pass(w.cfg.ReportInterval)
		w.wantStored(s.ID, 3, "after two intervals")

		here := w.open(c, token, "c", 1) // c asks
		w.wantPendingLimited(c, token, "three elsewhere, one here")
		here = append(here, w.open(b, token, "b", 1)...) // b does not
		w.pass(w.cfg.ReportInterval)
		w.wantPendingLimited(b, token, "three elsewhere, one here, after a report")
		w.pass(2 * w.cfg.ReportInterval)
		w.wantPendingLimited(a, token, "three here, two elsewhere")

		release(there[:2])
		w.pass(2 * w.cfg.ReportInterval)
		for _, m := range []*cluster.Manager{a, b, c} {
			w.wantAdmitted(m, token, "when two are over")
		}
		release(here)
		release(there)
		w.pass(w.cfg.ReportInterval)
		w.wantStored(s.ID, 0, "at the end")
		w.pass(w.cfg.Lease)
		w.open(b, token, "b again", 4)
	})
}

func TestPendingOfAKilledReplicaCountsUntilPruned(t *testing.T) {
	inWorld(t, capped(3), func(t *testing.T, w *world) {
		killed, stop := w.replica()
		other, _ := w.replica()
		s, token := w.session(other)
		w.open(killed, token, "k", 3)
		w.pass(2 * w.cfg.ReportInterval)
		w.wantStored(s.ID, 3, "in flight")
		w.store.set(true, false) // nothing of it reaches the store any more
		stop()
		w.store.set(false, false)
		for range 3 {
			w.pass(w.cfg.Lease)
			w.wantPendingLimited(other, token, "as long as nobody has pruned")
		}
		if n, err := w.store.Prune(t.Context(), s.ID, []string{killed.Incarnation()}); n != 3 || err != nil {
			t.Errorf("pruned %d, %v; want 3", n, err)
		}
		w.pass(w.cfg.Lease)
		w.open(other, token, "k", 3)
	})
}

// A report whose reply is lost may have been taken. What it told must be taken back all the same, or it counts for ever.
func TestPendingToldInALostReportIsTakenBack(t *testing.T) {
	for name, after := range map[string]time.Duration{"before the next report": 0, "after the next report": time.Second} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, capped(4), func(_ *testing.T, w *world) {
				m, _ := w.replica()
				s, token := w.session(m)
				leases := w.open(m, token, "k", 2)
				w.store.set(false, true)
				w.pass(1500 * time.Millisecond)
				w.wantStored(s.ID, 2, "told, though the reply was lost")
				w.pass(after)
				release(leases)
				w.store.set(false, false)
				w.pass(2 * w.cfg.ReportInterval)
				w.wantStored(s.ID, 0, "when they are over")
				w.open(m, token, "again", 4)
			})
		})
	}
}

// What this replica has in flight is never mistaken for another's, whatever was lost.
func TestPendingOfOnesOwnIsNotCountedTwice(t *testing.T) {
	inWorld(t, capped(4), func(_ *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		old := w.open(m, token, "old", 1)
		w.pass(2 * w.cfg.ReportInterval)
		lost := w.open(m, token, "lost", 1)
		w.store.set(false, true)
		w.pass(1500 * time.Millisecond) // told, the reply is lost
		release(lost)
		w.pass(w.cfg.ReportInterval) // taken back, the reply is lost
		w.store.set(false, false)
		w.pass(2 * w.cfg.ReportInterval)
		w.wantStored(s.ID, 1, "the old one")
		more := w.open(m, token, "more", 3) // one and three are four
		w.pass(3 * w.cfg.ReportInterval)
		release(old)
		release(more[:2])
		w.open(m, token, "rest", 3)
	})
}

// A client may use an id again: while the first request is in flight, or right after it was over.
func TestPendingIdUsedAgainIsNotLost(t *testing.T) {
	inWorld(t, capped(4), func(_ *testing.T, w *world) {
		m, _ := w.replica()
		s, token := w.session(m)
		first := w.open(m, token, "k", 1)
		w.pass(2 * w.cfg.ReportInterval)
		w.wantStored(s.ID, 1, "the first")
		w.store.set(true, false)
		release(first)
		second := w.open(m, token, "k", 1) // the same id
		w.pass(3 * w.cfg.ReportInterval)   // no report gets through
		w.store.set(false, false)
		w.pass(2 * w.cfg.ReportInterval)
		w.wantStored(s.ID, 1, "the second, by the same id")
		third := w.open(m, token, "k", 1) // while the second is in flight
		release(second)
		w.pass(2 * w.cfg.ReportInterval)
		w.wantStored(s.ID, 1, "the third, by the same id")
		release(third)
		w.pass(2 * w.cfg.ReportInterval)
		w.wantStored(s.ID, 0, "at the end")
	})
}

// Each request of a batch is in flight, so a batch that holds more than may be is never let through.
func TestEachRequestOfABatchCountsAsPending(t *testing.T) {
	for name, lease := range map[string]time.Duration{"from memory": cluster.DefaultConfig().Lease, "strict": 0} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(c *cluster.Config) { c.MaxPending, c.Lease = 3, lease }, func(t *testing.T, w *world) {
				m, _ := w.replica()
				_, token := w.session(m)
				take := func(n int) (*cluster.Lease, error) {
					return m.Lease(t.Context(), token, cluster.Use{Upstream: "u", Requests: n, Pending: n, PendingKey: fmt.Sprint("b:", n)})
				}
				if _, err := take(4); !errors.Is(err, cluster.ErrPendingLimited) {
					t.Errorf("four at once: %v, want ErrPendingLimited", err)
				}
				two, err := take(2)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := take(3); !errors.Is(err, cluster.ErrPendingLimited) {
					t.Errorf("three beside two: %v, want ErrPendingLimited", err)
				}
				two.Release()
				three, err := take(3)
				if err != nil {
					t.Fatalf("three alone: %v", err)
				}
				three.Release()
			})
		})
	}
}

// A client that uses an id again, at whatever replica, and one that sends batches, has as many requests in flight as it has sent.
func TestEachRequestInFlightCountsAtOtherReplicas(t *testing.T) {
	for name, open := range map[string]func(w *world, m *cluster.Manager, token cluster.Token) []*cluster.Lease{
		"with one id": func(w *world, m *cluster.Manager, token cluster.Token) []*cluster.Lease {
			one := func() *cluster.Lease { return w.mustLease(m, token, pendingUse("c:1")) }
			return []*cluster.Lease{one(), one(), one()}
		},
		"in a batch": func(w *world, m *cluster.Manager, token cluster.Token) []*cluster.Lease {
			return []*cluster.Lease{w.mustLease(m, token, cluster.Use{Upstream: "u", Requests: 3, Pending: 3, PendingKey: "b:1"})}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, capped(7), func(t *testing.T, w *world) {
				a, _ := w.replica()
				b, _ := w.replica()
				c, _ := w.replica()
				s, token := w.session(a)
				leases := append(open(w, a, token), open(w, b, token)...)
				w.pass(2 * w.cfg.ReportInterval)
				w.wantStored(s.ID, 6, "three at each of two replicas")
				all, err := w.store.ReadPending(t.Context(), s.ID)
				if err != nil || len(all) != 6 {
					t.Fatalf("operators are told of %d, %v", len(all), err)
				}
				for _, p := range all {
					if got := p.Request(); got != "c:1" && got != "b:1" {
						t.Errorf("operators are told of the request %q", got)
					}
				}
				for _, m := range []*cluster.Manager{a, b, c} {
					seventh := w.mustLease(m, token, pendingUse("c:7"))
					w.wantPendingLimited(m, token, "the eighth")
					seventh.Release()
				}
				release(leases[:1])
				w.pass(2 * w.cfg.ReportInterval)
				w.wantStored(s.ID, 6-len(leases[:1])*6/len(leases), "when some are over")
				release(leases)
				w.pass(2 * w.cfg.ReportInterval)
				w.wantStored(s.ID, 0, "at the end")
			})
		})
	}
}
