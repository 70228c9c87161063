package integration_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// waited is how many replicas must confirm: on Sentinel all, because any of them may be promoted.
var waited = map[string]int{"Sentinel": 2, "Cluster": 1}

// What a store with wait_replicas has acknowledged survives the death of the primary, whatever was written last.
func TestAcknowledgedStateSurvivesAFailover(t *testing.T) {
	for name, start := range startReplicated {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, primaryOf := start(t)
			if err := at.WaitReplicated(t.Context()); err != nil {
				t.Fatal(err)
			}
			options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig(), WaitReplicas: waited[name]}
			options.Config.StoreTimeout = time.Second
			store := openStore(t, at.URL(storeUser), options)
			a := acknowledge(t, store)
			a.waitFor(t, 300)

			primary, err := primaryOf(options.Prefix + ":{0}:lru")
			if err != nil {
				t.Fatal(err)
			}
			replicas := cutOff(t, at, primary)
			refused := a.writeDuring(t, options.Config.StoreTimeout) // the primary takes writes that no replica will have
			primary.Kill()
			for _, r := range replicas {
				if err := r.Resume(); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, recovery, func(context.Context) error {
				if now, err := primaryOf(options.Prefix + ":{0}:lru"); err != nil || now == primary {
					return errNotYet
				}
				return nil
			})
			if err := at.Restore(t.Context()); err != nil { // there must be enough replicas again
				t.Fatal(err)
			}
			a.waitFor(t, 100)
			a.end()
			if !refused {
				t.Error("nothing was refused while no replica confirmed")
			}
			a.check(t, store)
			checkViolations(t, at, options)
		})
	}
}

// cutOff makes all servers that have nothing but copies hang, and takes their connections to the primary away.
func cutOff(t *testing.T, at replicated, primary *redisserver.Server) []*redisserver.Server {
	t.Helper()
	var replicas []*redisserver.Server
	for _, server := range at.Servers() {
		client := server.Client()
		role, err := client.Do(t.Context(), "role").Slice()
		if err = errors.Join(err, client.Close()); err != nil {
			t.Fatal(err)
		}
		if role[0] == "slave" {
			replicas = append(replicas, server)
		}
	}
	for _, r := range replicas {
		if err := r.Suspend(); err != nil {
			t.Fatal(err)
		}
	}
	client := primary.Client()
	defer client.Close()
	if err := client.ClientKillByFilter(t.Context(), "TYPE", "replica").Err(); err != nil {
		t.Fatal(err)
	}
	return replicas
}

// acknowledgements are what a store has said to have done.
type acknowledgements struct {
	store   *redisstore.Store
	stop    context.CancelFunc
	workers sync.WaitGroup

	mu       sync.Mutex
	statuses map[cluster.ID]cluster.Status // the latest that was acknowledged of each session
	unsure   map[cluster.ID]bool           // a later change was not acknowledged, but may have happened
	refusals int
	all      int
}

// acknowledge makes and ends sessions until the test ends.
func acknowledge(t *testing.T, store *redisstore.Store) *acknowledgements {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	a := &acknowledgements{store: store, stop: stop, statuses: make(map[cluster.ID]cluster.Status), unsure: make(map[cluster.ID]bool)}
	for worker := range 8 {
		a.workers.Go(func() {
			for n := worker; ctx.Err() == nil; n++ {
				a.life(ctx, n%2 == 0)
				pause(ctx, loadPause)
			}
		})
	}
	t.Cleanup(a.end)
	return a
}

func (a *acknowledgements) end() {
	a.stop()
	a.workers.Wait()
}

// life makes a session, and ends it if it is to.
func (a *acknowledgements) life(ctx context.Context, ends bool) {
	limited := func(do func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return do(ctx)
	}
	var k knownSession
	err := limited(func(ctx context.Context) (err error) {
		k, err = newActive(ctx, a.store)
		return err
	})
	if err != nil {
		a.refuse(ctx, cluster.ID{}, err)
		return
	}
	a.note(k.ID, cluster.StatusActive)
	event := cluster.EventAppend{ID: k.ID, Stream: "s", First: 1, Events: [][]byte{[]byte("event")}}
	if err := limited(func(ctx context.Context) error {
		_, err := a.store.AppendEvents(ctx, event)
		return err
	}); err != nil {
		a.refuse(ctx, cluster.ID{}, err)
		return
	}
	if !ends {
		return
	}
	err = limited(func(ctx context.Context) error {
		_, err := a.store.Terminate(ctx, k.ID, cluster.StatusClosed)
		return err
	})
	if err != nil {
		a.refuse(ctx, k.ID, err)
		return
	}
	a.note(k.ID, cluster.StatusClosed)
}

func (a *acknowledgements) note(id cluster.ID, status cluster.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.statuses[id] = status
	a.all++
}

func (a *acknowledgements) refuse(ctx context.Context, id cluster.ID, err error) {
	a.mu.Lock()
	a.unsure[id] = true
	if strings.Contains(err.Error(), "wait_replicas") {
		a.refusals++
	}
	a.mu.Unlock()
	pause(ctx, failurePause)
}

// waitFor waits for n more acknowledgements.
func (a *acknowledgements) waitFor(t *testing.T, n int) {
	t.Helper()
	before := a.count()
	eventually(t, recovery, func(context.Context) error {
		if a.count() < before+n {
			return errNotYet
		}
		return nil
	})
}

func (a *acknowledgements) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all
}

// writeDuring lets the workers write for a while and reports whether any was told that no replica has it.
func (a *acknowledgements) writeDuring(t *testing.T, d time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refusals > 0
}

// check fails the test for every acknowledged change that is forgotten.
func (a *acknowledgements) check(t *testing.T, store *redisstore.Store) {
	t.Helper()
	forgotten := 0
	for id, want := range a.statuses {
		var got cluster.Session
		var err error
		eventually(t, recovery, func(ctx context.Context) error { // its shard may not be back yet
			if got, err = store.Get(ctx, id); errors.Is(err, cluster.ErrStoreUnavailable) {
				return err
			}
			return nil
		})
		if err != nil || got.Status != want && !a.unsure[id] {
			forgotten++
			t.Logf("session %s: %s, %v; acknowledged was %s", id, got.Status, err, want)
		}
	}
	t.Logf("%d changes acknowledged, %d refused for want of replicas, %d forgotten", a.all, a.refusals, forgotten)
	if forgotten > 0 {
		t.Errorf("%d of %d sessions were forgotten after the store had acknowledged them", forgotten, len(a.statuses))
	}
}
