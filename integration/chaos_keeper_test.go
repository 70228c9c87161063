package integration_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	keptSessions = 20
	keepPause    = 200 * time.Millisecond
)

// keeper keeps sessions alive by telling the store of activity, and notices when one has ended all the same. Each session has a
// goroutine of its own: where a part of the store hangs, the sessions of the rest must not wait for it.
type keeper struct {
	store    cluster.Store
	sessions []*keptSession
	alive    time.Duration // for how long a session must live after the store was told of activity
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// keptSession belongs to its goroutine, until that is done.
type keptSession struct {
	knownSession
	told           time.Time // when the last call that was answered had been sent
	lapsed, harmed bool
	calls, refused int
	slowest        time.Duration // between two calls that were answered
}

func newKeeper(t *testing.T, store cluster.Store, config cluster.Config) *keeper {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	k := &keeper{store: store, alive: config.IdleTimeout + config.ReportSlack, stop: stop}
	t.Cleanup(func() {
		stop()
		k.done.Wait()
	})
	for range keptSessions {
		sent := time.Now()
		session, err := newActive(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		kept := &keptSession{knownSession: session, told: sent}
		k.sessions = append(k.sessions, kept)
		k.done.Go(func() { // ends with the test at the latest
			for ctx.Err() == nil && !kept.lapsed {
				k.touch(ctx, kept)
				pause(ctx, keepPause)
			}
		})
	}
	return k
}

// touch tells the store of activity. A session that is gone sooner than it may was harmed; one that the test itself has kept
// waiting, because its part of the store or the machine was busy, has ended as it should.
func (k *keeper) touch(ctx context.Context, kept *keptSession) {
	if kept.lapsed {
		return
	}
	sent := time.Now()
	_, err := k.store.Lease(ctx, kept.lease())
	since := time.Since(kept.told)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		kept.calls++
		kept.told = sent
		kept.slowest = max(kept.slowest, since)
	case errors.Is(err, cluster.ErrNotFound):
		kept.lapsed, kept.harmed = true, since < k.alive
	default:
		kept.refused++
	}
}

// end ends the keeping, and fails the test when a session was harmed.
func (k *keeper) end(t *testing.T) {
	t.Helper()
	k.stop()
	k.done.Wait()
	var calls, refused, lapsed int
	var slowest time.Duration
	for _, kept := range k.sessions {
		k.touch(t.Context(), kept) // what happened since the last time
		calls, refused, slowest = calls+kept.calls, refused+kept.refused, max(slowest, kept.slowest)
		if kept.lapsed {
			lapsed++
		}
		if kept.harmed {
			t.Errorf("session %s ended less than %s after the store was told of activity", kept.ID, k.alive)
		}
	}
	t.Logf("%d sessions kept alive by %d calls, %d more failed; the longest gap was %s; %d lapsed",
		keptSessions-lapsed, calls, refused, slowest.Round(time.Millisecond), lapsed)
	if lapsed == keptSessions {
		t.Error("no session was kept alive until the end: nothing was seen")
	}
}
