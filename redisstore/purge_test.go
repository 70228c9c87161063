package redisstore_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Every record that goes is told exactly once, whoever removes it.
func TestEveryPurgeIsTold(t *testing.T) {
	t.Parallel()
	w := newDrifted(t, 1, 1)
	var mu sync.Mutex
	var told []cluster.ID
	w.store.OnPurge(func(ids []cluster.ID) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, ids...)
	})
	expect := func(by string, want ...cluster.Session) {
		t.Helper()
		var ids []cluster.ID
		for _, s := range want {
			ids = append(ids, s.ID)
		}
		if !slices.Equal(told, ids) {
			t.Errorf("%s purged %v, want %v", by, told, ids)
		}
		told = nil
	}
	made := []cluster.Session{w.session(), w.session(), w.session(), w.session()}
	terminate := func(s cluster.Session) {
		t.Helper()
		if _, err := w.store.Terminate(t.Context(), s.ID, cluster.StatusClosed); err != nil {
			t.Fatal(err)
		}
	}
	expect("nobody")
	w.pass(10 * time.Minute) // the retention of the one that has ended
	terminate(made[0])
	expect("an end", w.ended)
	w.pass(10 * time.Minute)
	ended, err := w.store.End(t.Context(), cluster.EndCall{IDs: []cluster.ID{made[1].ID}, Status: cluster.StatusTerminated})
	if err != nil || len(ended) != 1 {
		t.Fatalf("%d ended, %v", len(ended), err)
	}
	expect("an operator's end", made[0])
	w.pass(11 * time.Minute) // the others are past their ends, too
	w.session()
	expect("a creation", made[1])
	w.pass(10 * time.Minute)
	swept, err := w.store.Sweep(t.Context(), cluster.SweepCall{Limit: 100})
	if err != nil || len(swept.Purged) == 0 {
		t.Errorf("swept %+v, %v; want some purged", swept, err)
	}
	expect("a sweep, which returns them")
}

// Where nothing ever cleans up, Redis does: what an ended session leaves has a TTL of its retention and an hour, not of a live session.
func TestWhatAnEndedSessionLeavesGoesByItself(t *testing.T) {
	t.Parallel()
	w := newDrifted(t, 1, 1)
	left := func() (keys []string) {
		for _, key := range w.servers[0].Keys() {
			if strings.HasSuffix(key, w.ended.ID.String()) {
				keys = append(keys, key)
			}
		}
		return keys
	}
	if got := left(); len(got) != 3 {
		t.Errorf("of an ended session there are %q, want its record, its long strings and its frames", got)
	}
	w.pass(10*time.Minute + time.Hour)
	if got := left(); len(got) > 0 {
		t.Errorf("an hour after its retention there are %q", got)
	}
}
