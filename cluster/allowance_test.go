package cluster_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// admit makes requests at replicas in turn, without a session, and returns how many were admitted.
func (w *world) admit(p cluster.Principal, n int, replicas ...*cluster.Manager) (admitted int) {
	w.t.Helper()
	for i := range n {
		err := replicas[i%len(replicas)].Admit(w.t.Context(), p)
		limit, isLimit := errors.AsType[*cluster.LimitError](err)
		switch {
		case err == nil:
			admitted++
		case !isLimit || !errors.Is(err, cluster.ErrRateLimited) || limit.Limit != "stateless_rate_per_principal" || limit.RetryAfter <= 0:
			w.t.Errorf("request %d: %v, want ErrRateLimited by stateless_rate_per_principal", i, err)
		}
	}
	return admitted
}

func statelessRate(rate int) func(*cluster.Config) {
	return func(c *cluster.Config) { c.StatelessRatePerPrincipal = rate }
}

func TestRequestsOfAPrincipalAreLimitedOverAllReplicas(t *testing.T) {
	const rate = 40
	inWorld(t, statelessRate(rate), func(t *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		c, _ := w.replica()
		begun, admitted := time.Now(), 0
		for range 100 { // ten seconds, at five times the rate
			admitted += w.admit("alice", 20, a, b, c)
			w.pass(100 * time.Millisecond)
		}
		most := int(rate * (1 + time.Since(begun).Seconds() + w.cfg.Lease.Seconds()))
		if least := int(rate * time.Since(begun).Seconds() * 0.8); admitted > most || admitted < least {
			t.Errorf("%d were admitted in %v, want %d to %d", admitted, time.Since(begun), least, most)
		}
		if got := w.admit("bob", 30, a, b, c); got != 30 {
			t.Errorf("of somebody else %d were admitted, want all 30", got)
		}
		w.pass(time.Minute) // what is kept of them is gone
		if got := w.admit("alice", rate, a); got != rate {
			t.Errorf("after a pause %d were admitted at one replica, want %d", got, rate)
		}
	})
}

// Who makes many requests costs the store few calls, and who makes few leaves nothing unused with a replica.
func TestAllowancesGrowWithWhatIsUsed(t *testing.T) {
	inWorld(t, statelessRate(1000), func(t *testing.T, w *world) {
		m, _ := w.replica()
		other, _ := w.replica()
		for range 50 {
			w.admit("alice", 20, m)
			w.pass(100 * time.Millisecond)
		}
		if w.store.grants > 250 {
			t.Errorf("1000 requests in 5 s cost %d calls of the store", w.store.grants)
		}
		w.pass(time.Minute)
		w.admit("alice", 1, m)
		if got := w.admit("alice", 999, other); got < 998 {
			t.Errorf("beside one request at another replica %d of 999 were admitted", got)
		}
	})
}

func TestWithoutAPrincipalNoStoreIsAsked(t *testing.T) {
	inWorld(t, statelessRate(1), func(t *testing.T, w *world) {
		m, _ := w.replica()
		if got := w.admit("", 1000, m); got != 1000 || w.store.grants != 0 {
			t.Errorf("%d were admitted by %d calls of the store, want 1000 by none", got, w.store.grants)
		}
	})
	inWorld(t, statelessRate(0), func(t *testing.T, w *world) {
		m, _ := w.replica()
		if got := w.admit("alice", 1000, m); got != 1000 || w.store.grants != 0 {
			t.Errorf("without a limit %d were admitted by %d calls of the store, want 1000 by none", got, w.store.grants)
		}
	})
}

func TestEachReplicaLimitsPrincipalsAloneWhileTheStoreIsAway(t *testing.T) {
	inWorld(t, statelessRate(10), func(t *testing.T, w *world) {
		m, _ := w.replica()
		w.store.set(true, false)
		if got := w.admit("alice", 50, m); got != 10 {
			t.Errorf("%d were admitted, want 10", got)
		}
		w.pass(time.Second)
		if got := w.admit("alice", 50, m); got != 10 {
			t.Errorf("a second later %d were admitted, want 10", got)
		}
		w.store.set(false, false)
		w.pass(2 * time.Second)
		if got := w.admit("alice", 50, m); got != 10 {
			t.Errorf("with the store %d were admitted, want 10", got)
		}
	})
}

func TestStrictModeAsksForEachRequestOfAPrincipal(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.Lease, c.StatelessRatePerPrincipal = 0, 5 }, func(t *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		if got := w.admit("alice", 20, a, b); got != 5 || w.store.grants != 20 {
			t.Errorf("%d were admitted by %d calls of the store, want 5 by 20", got, w.store.grants)
		}
	})
}

// admitAtOnce makes n requests at once, at replicas in turn, and returns how many were admitted.
func (w *world) admitAtOnce(p cluster.Principal, n int, replicas ...*cluster.Manager) int {
	w.t.Helper()
	var admitted atomic.Int64
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { admitted.Add(int64(w.admit(p, 1, replicas[i%len(replicas)]))) })
	}
	all.Wait()
	return int(admitted.Load())
}

// What the store grants is used by those who wait: nobody is refused while somebody else's share lies unused.
func TestRequestsThatComeAtOnceHaveAllOfTheRate(t *testing.T) {
	const rate = 100
	for _, n := range []int{1, 3} {
		inWorld(t, statelessRate(rate), func(t *testing.T, w *world) {
			var replicas []*cluster.Manager
			for range n {
				m, _ := w.replica()
				replicas = append(replicas, m)
			}
			w.store.delay = time.Millisecond // all come before the first answer
			if got := w.admitAtOnce("alice", rate, replicas...); got != rate {
				t.Errorf("%d of %d at once were admitted by %d replicas, want all", got, rate, n)
			}
			if got := w.admitAtOnce("bob", 5*rate, replicas...); got < rate || got > 2*rate {
				t.Errorf("%d of %d at once were admitted by %d replicas, want %d and what comes meanwhile", got, 5*rate, n, rate)
			}
			if w.store.grants > rate {
				t.Errorf("they cost %d calls of the store", w.store.grants)
			}
		})
	}
}

// Those who wait for an answer of the store share its want, too: together they wait no longer than one.
func TestRequestsThatWaitTogetherForAStoreThatIsAwayAreDecidedAlone(t *testing.T) {
	inWorld(t, statelessRate(10), func(t *testing.T, w *world) {
		m, _ := w.replica()
		w.store.set(true, false)
		w.store.delay = time.Second
		begun := time.Now()
		if got := w.admitAtOnce("alice", 30, m); got != 10 || time.Since(begun) > time.Second {
			t.Errorf("%d were admitted in %v, want 10 in a second", got, time.Since(begun))
		}
	})
}

func TestThatAnAskerLeavesIsNoMatterForThoseWhoWait(t *testing.T) {
	inWorld(t, statelessRate(10), func(t *testing.T, w *world) {
		m, _ := w.replica()
		w.store.delay = 100 * time.Millisecond
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- m.Admit(ctx, "alice") }()
		synctest.Wait()
		time.AfterFunc(10*time.Millisecond, leave)
		if got := w.admitAtOnce("alice", 5, m); got != 5 {
			t.Errorf("%d of 5 were admitted", got)
		}
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
	})
}

// Who leaves while a store that is away is asked must not begin the count anew, or leaving would be a way around it.
func TestThatAnAskerLeavesSparesNobodyTheCountOfAnOutage(t *testing.T) {
	inWorld(t, statelessRate(10), func(t *testing.T, w *world) {
		m, _ := w.replica()
		w.store.set(true, false)
		w.store.delay = 100 * time.Millisecond
		if got := w.admitAtOnce("alice", 30, m); got != 10 {
			t.Errorf("%d were admitted, want 10", got)
		}
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, leave)
		if err := m.Admit(ctx, "alice"); !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		if got := w.admitAtOnce("alice", 30, m); got > 2 {
			t.Errorf("%d more were admitted a tenth of a second later", got)
		}
	})
}
