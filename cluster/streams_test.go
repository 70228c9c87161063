package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestReplicasPassASessionsStreamOn(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		s, _ := w.session(a)
		state, err := a.ClaimStream(t.Context(), cluster.StreamClaim{ID: s.ID, Read: true})
		if err != nil || state.Reader != a.Incarnation() {
			t.Fatalf("ClaimStream: %+v, %v; want %s to read", state, err, a.Incarnation())
		}
		if _, err := a.Append(t.Context(), own(s.ID, state.Claim, 1, "one")); err != nil {
			t.Fatal(err)
		}
		if state, err = b.ClaimStream(t.Context(), cluster.StreamClaim{ID: s.ID, Listen: true, Read: true, From: state.Claim}); err != nil {
			t.Fatal(err)
		}
		want := cluster.StreamState{Reader: b.Incarnation(), Claim: 2, Listener: 1, Last: 1, Begins: []int64{0}, Since: []int64{1, 0}, Version: s.Version}
		if diff := cmp.Diff([]cluster.StreamState{want}, a.StreamStates(t.Context(), []cluster.ID{s.ID})); diff != "" {
			t.Errorf("state after the takeover (-want +got):\n%s", diff)
		}
		if _, err := a.Append(t.Context(), own(s.ID, 1, 2, "stale")); !errors.Is(err, cluster.ErrStaleClaim) || !strings.Contains(err.Error(), s.ID.String()) {
			t.Errorf("append of the old reader: %v, want ErrStaleClaim that names the session", err)
		}
		appended, err := b.Append(t.Context(), own(s.ID, state.Claim, 2, "two"))
		if err != nil || appended.Listener != 1 {
			t.Errorf("append of the new reader: %+v, %v; want listener 1", appended, err)
		}
		pages := a.Events(t.Context(), []cluster.EventQuery{{ID: s.ID, Stream: cluster.OwnStream, Limit: 10}, {ID: s.ID, Stream: cluster.OwnStream, After: 9}})
		if len(pages) != 2 || pages[0].Err != nil || len(pages[0].Events) != 2 || pages[0].Listener != 1 {
			t.Errorf("events: %+v", pages)
		} else if err := pages[1].Err; !errors.Is(err, cluster.ErrEventsGone) || !strings.Contains(err.Error(), s.ID.String()) {
			t.Errorf("events after the last: %v, want ErrEventsGone that names the session", err)
		}
		if err := a.ReleaseStream(t.Context(), s.ID, 1); !errors.Is(err, cluster.ErrStaleClaim) {
			t.Errorf("release of the old reader: %v, want ErrStaleClaim", err)
		}
		if err := b.ReleaseStream(t.Context(), s.ID, state.Claim); err != nil {
			t.Errorf("ReleaseStream: %v", err)
		}
	})
}

// own is one event of a session's own stream.
func own(id cluster.ID, claim, first int64, event string) cluster.EventAppend {
	return cluster.EventAppend{ID: id, Stream: cluster.OwnStream, Claim: claim, First: first, Events: [][]byte{[]byte(event)}}
}

// Every call about a session hears that it has ended, and tells whoever streams for it.
func TestCallsThatFindASessionEndedEndItsLeases(t *testing.T) {
	for name, call := range map[string]func(context.Context, *cluster.Manager, cluster.Session) error{
		"append": func(ctx context.Context, m *cluster.Manager, s cluster.Session) error {
			_, err := m.Append(ctx, own(s.ID, 1, 1, "one"))
			return err
		},
		"events": func(ctx context.Context, m *cluster.Manager, s cluster.Session) error {
			return m.Events(ctx, []cluster.EventQuery{{ID: s.ID, Stream: "s", Limit: 1}})[0].Err
		},
		"claim": func(ctx context.Context, m *cluster.Manager, s cluster.Session) error {
			_, err := m.ClaimStream(ctx, cluster.StreamClaim{ID: s.ID})
			return err
		},
		"release": func(ctx context.Context, m *cluster.Manager, s cluster.Session) error {
			return m.ReleaseStream(ctx, s.ID, 1)
		},
		"state": func(ctx context.Context, m *cluster.Manager, s cluster.Session) error {
			return m.StreamStates(ctx, []cluster.ID{s.ID})[0].Err
		},
		"recovery": func(ctx context.Context, m *cluster.Manager, s cluster.Session) error {
			_, err := m.ClaimRecovery(ctx, s.ID, s.Version, "w", time.Second)
			return err
		},
		"remap": func(ctx context.Context, m *cluster.Manager, s cluster.Session) error {
			_, err := m.Remap(ctx, s, "w", "", cluster.Activation{})
			return err
		},
		"note": func(ctx context.Context, m *cluster.Manager, s cluster.Session) error {
			return m.Note(ctx, cluster.Note{ID: s.ID, Key: "k", Message: []byte("note")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(t *testing.T, w *world) {
				a, _ := w.replica()
				s, _, watch := w.watched(a)
				defer watch.Release()
				if _, err := w.store.Terminate(t.Context(), s.ID, cluster.StatusTerminated); err != nil {
					t.Fatal(err)
				}
				err := call(t.Context(), a, s)
				if !errors.Is(err, cluster.ErrNotFound) && !errors.Is(err, cluster.ErrIllegalTransition) || !strings.Contains(err.Error(), s.ID.String()) {
					t.Errorf("%v, want an error that says that the session has ended, and which", err)
				}
				if !hasEnded(watch) {
					t.Error("the lease has not heard of it")
				}
			})
		})
	}
}

// silentStore does not answer.
type silentStore struct{ cluster.Store }

func (silentStore) AppendEvents(ctx context.Context, _ cluster.EventAppend) (cluster.Appended, error) {
	<-ctx.Done()
	return cluster.Appended{}, cluster.ErrStoreUnavailable
}

func (silentStore) Replicas(ctx context.Context) ([]string, error) {
	<-ctx.Done()
	return nil, cluster.ErrStoreUnavailable
}

func (silentStore) ClaimRecovery(ctx context.Context, _ cluster.RecoveryClaim) (cluster.Recovery, error) {
	<-ctx.Done()
	return cluster.Recovery{}, cluster.ErrStoreUnavailable
}

func TestCallsOfASilentStoreEndInTime(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, err := cluster.NewManager(silentStore{w.store}, w.cfg, cluster.Options{})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, errAppend := m.Append(t.Context(), cluster.EventAppend{})
		_, errAlive := m.Alive(t.Context(), "b/1")
		_, errRecovery := m.ClaimRecovery(t.Context(), cluster.ID{}, 1, "w", time.Second)
		for call, err := range map[string]error{"append": errAppend, "alive": errAlive, "recovery": errRecovery} {
			if !errors.Is(err, cluster.ErrStoreUnavailable) {
				t.Errorf("%s: %v, want ErrStoreUnavailable", call, err)
			}
		}
		if took := time.Since(begun); took != 3*w.cfg.StoreTimeout {
			t.Errorf("three calls took %v, want %v each", took, w.cfg.StoreTimeout)
		}
		ctx, cancel := context.WithTimeout(t.Context(), w.cfg.StoreTimeout/2)
		defer cancel()
		w.pass(2 * time.Second)
		var all sync.WaitGroup
		all.Go(func() { _, _ = m.Alive(t.Context(), "b/1") })
		w.pass(0)
		if _, err := m.Alive(ctx, "b/1"); !errors.Is(err, cluster.ErrStoreUnavailable) {
			t.Errorf("a caller who cannot wait for another's look: %v, want ErrStoreUnavailable", err)
		}
		all.Wait()
	})
}

// listingStore counts looks at the list of replicas, and may be away.
type listingStore struct {
	cluster.Store
	mu    sync.Mutex
	away  bool
	looks int
}

func (l *listingStore) setAway(away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = away
}

func (l *listingStore) Replicas(ctx context.Context) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	if l.away {
		return nil, cluster.ErrStoreUnavailable
	}
	return l.Store.Replicas(ctx)
}

// listed is a replica over a listingStore.
func (w *world) listed() (*cluster.Manager, *listingStore) {
	w.t.Helper()
	list := &listingStore{Store: w.store}
	m, err := cluster.NewManager(list, w.cfg, cluster.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.pass(time.Millisecond) // it has said that it lives
	return m, list
}

// wantAlive fails the test unless a replica is taken to live, or to be dead.
func (w *world) wantAlive(m *cluster.Manager, owner string, want bool, when string) {
	w.t.Helper()
	if alive, err := m.Alive(w.t.Context(), owner); err != nil || alive != want {
		w.t.Errorf("%s: %s is alive: %v, %v; want %v", when, owner, alive, err, want)
	}
}

func TestReplicasKnowWhoLives(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		b, stop := w.replica()
		m, _ := w.listed()
		random := func(incarnation string) string { return incarnation[strings.LastIndex(incarnation, "/")+1:] }
		for _, owner := range []string{m.Incarnation(), random(m.Incarnation()), b.Incarnation(), random(b.Incarnation())} {
			w.wantAlive(m, owner, true, "while both run")
		}
		for _, owner := range []string{"replica/ABCDEFGH", "ABCDEFGH", "", "/", random(b.Incarnation())[1:]} {
			w.wantAlive(m, owner, false, "an unknown one")
		}
		stop()
		w.pass(time.Second)
		w.wantAlive(m, b.Incarnation(), false, "after it has left")
		w.wantAlive(m, m.Incarnation(), true, "itself")

		if err := w.store.Beat(t.Context(), "killed/1"); err != nil {
			t.Fatal(err)
		}
		w.pass(4 * time.Second)
		w.wantAlive(m, "killed/1", true, "4 s after its last sign of life")
		w.pass(2 * time.Second)
		w.wantAlive(m, "killed/1", false, "6 s after its last sign of life")
	})
}

func TestOneLookASecondTellsWhoLives(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, list := w.listed()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { w.wantAlive(m, "b/1", false, "at once") })
		}
		all.Wait()
		w.pass(time.Second - time.Millisecond)
		w.wantAlive(m, "b/1", false, "within the second")
		if list.looks != 1 {
			t.Errorf("%d looks at the list within a second, want 1", list.looks)
		}
		list.setAway(true)
		w.pass(time.Millisecond)
		for range 3 {
			if alive, err := m.Alive(t.Context(), "b/1"); !errors.Is(err, cluster.ErrStoreUnavailable) || alive {
				t.Errorf("while the store is away: %v, %v; want ErrStoreUnavailable", alive, err)
			}
		}
		if list.looks != 2 {
			t.Errorf("%d looks at the list in two seconds, want 2", list.looks)
		}
		w.wantAlive(m, m.Incarnation(), true, "itself, whatever the store says")
	})
}

// A replica that has just started serves before others hear of it. They look before they take it for dead.
func TestAReplicaThatHasJustStartedIsNotDead(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world) {
		m, list := w.listed()
		w.wantAlive(m, "old/1", false, "before anybody has started")
		w.pass(100 * time.Millisecond)
		for _, incarnation := range []string{"new/1", "new/2"} {
			if err := w.store.Beat(t.Context(), incarnation); err != nil {
				t.Fatal(err)
			}
			w.wantAlive(m, incarnation, true, "when it has just started")
		}
		looks := list.looks
		for range 20 {
			w.wantAlive(m, "old/1", false, "of whom that is known")
			w.wantAlive(m, "new/1", true, "of whom that is known")
		}
		for i := range 2000 {
			w.wantAlive(m, fmt.Sprintf("bogus/%d", i), false, "that never was")
		}
		if list.looks != looks+2000 {
			t.Errorf("%d looks for 2000 that were not asked about before", list.looks-looks)
		}
	})
}

// After an outage all replicas need the time to say that they live: nobody is taken for dead meanwhile.
func TestNobodyIsDeadForAMomentAfterAnOutage(t *testing.T) {
	for name, outage := range map[string]func(*world, *cluster.Manager, *listingStore){
		"the store was away": func(w *world, m *cluster.Manager, list *listingStore) {
			list.setAway(true)
			_, _ = m.Alive(w.t.Context(), "b/1")
			list.setAway(false)
			w.pass(time.Second)
		},
		"the store forgot who lives": func(w *world, _ *cluster.Manager, _ *listingStore) {
			w.server.FlushAll()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(_ *testing.T, w *world) {
				m, list := w.listed()
				w.pass(1500 * time.Millisecond)
				outage(w, m, list)
				w.wantAlive(m, "b/1", true, "at once")
				w.pass(1500 * time.Millisecond)
				w.wantAlive(m, "b/1", true, "soon after")
				w.pass(2 * time.Second)
				w.wantAlive(m, "b/1", false, "when it should have said that it lives")
			})
		})
	}
}

func TestAStateTellsWhereAListenerEnds(t *testing.T) {
	t.Parallel()
	state := cluster.StreamState{Listener: 5, Begins: []int64{9, 4, 6}}
	for number, want := range map[int64]int64{4: 9, 3: 4, 2: 6} {
		if got, known := state.EndOfListener(number); got != want || !known {
			t.Errorf("listener %d of 5 ends at %d, %v; want %d", number, got, known, want)
		}
	}
	for _, number := range []int64{0, 1, 5, 6} { // too long ago, or not at all
		if got, known := state.EndOfListener(number); known {
			t.Errorf("listener %d of 5 ends at %d, want that not to be known", number, got)
		}
	}
}
