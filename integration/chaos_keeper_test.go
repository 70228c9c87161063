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

// keeper keeps sessions alive by telling the store of activity, and notices when one has ended all the same.
type keeper struct {
	store    cluster.Store
	sessions []knownSession
	alive    time.Duration // for how long a session must live after the store was told of activity
	stop     context.CancelFunc
	done     sync.WaitGroup

	// Of the goroutine, until done.
	told    []time.Time // when the last call that was answered had been sent, of each session
	lapsed  map[int]bool
	harmed  []cluster.ID
	calls   int
	refused int
	slowest time.Duration // between two calls that were answered
}

func newKeeper(t *testing.T, store cluster.Store, config cluster.Config) *keeper {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	k := &keeper{store: store, alive: config.IdleTimeout + config.ReportSlack, stop: stop, lapsed: make(map[int]bool)}
	for range keptSessions {
		sent := time.Now()
		session, err := newActive(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		k.sessions, k.told = append(k.sessions, session), append(k.told, sent)
	}
	k.done.Go(func() { // ends with the test at the latest
		for ctx.Err() == nil {
			for i := range k.sessions {
				k.touch(ctx, i)
			}
			pause(ctx, keepPause)
		}
	})
	t.Cleanup(func() {
		stop()
		k.done.Wait()
	})
	return k
}

// touch tells the store of activity. A session that is gone sooner than it may was harmed; one that the test itself has kept
// waiting, because the store or the machine was busy, has ended as it should.
func (k *keeper) touch(ctx context.Context, i int) {
	if k.lapsed[i] {
		return
	}
	sent := time.Now()
	_, err := k.store.Lease(ctx, k.sessions[i].lease())
	since := time.Since(k.told[i])
	switch {
	case ctx.Err() != nil:
	case err == nil:
		k.calls++
		k.told[i] = sent
		k.slowest = max(k.slowest, since)
	case errors.Is(err, cluster.ErrNotFound):
		k.lapsed[i] = true
		if since < k.alive {
			k.harmed = append(k.harmed, k.sessions[i].ID)
		}
	default:
		k.refused++
	}
}

// end ends the keeping, and fails the test when a session was harmed.
func (k *keeper) end(t *testing.T) {
	t.Helper()
	k.stop()
	k.done.Wait()
	for i := range k.sessions { // what happened since the last time
		k.touch(t.Context(), i)
	}
	for _, id := range k.harmed {
		t.Errorf("session %s ended less than %s after the store was told of activity", id, k.alive)
	}
	t.Logf("%d sessions kept alive by %d calls, %d more failed; the longest gap was %s; %d lapsed",
		keptSessions-len(k.lapsed), k.calls, k.refused, k.slowest.Round(time.Millisecond), len(k.lapsed))
	if len(k.lapsed) == keptSessions {
		t.Error("no session was kept alive until the end: nothing was seen")
	}
}
