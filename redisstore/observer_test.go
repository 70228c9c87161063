package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// callLog is an observer that remembers.
type callLog struct {
	mu    sync.Mutex
	calls []string
	took  time.Duration
}

func (l *callLog) CallDone(script string, outcome redisstore.CallOutcome, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, fmt.Sprint(script, " ", outcome))
	l.took = took
}

// heard returns what was told since the last time.
func (l *callLog) heard() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = nil
	return calls
}

func TestAnObserverHearsOfEveryCall(t *testing.T) {
	t.Parallel()
	inFlaky(t, func(t *testing.T, f *flaky) {
		log := &callLog{}
		f.Observe(log)
		wants := func(when string, want ...string) {
			t.Helper()
			if got := log.heard(); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		ctx := t.Context()
		if err := f.Beat(ctx, "r-1/a"); err != nil {
			t.Fatal(err)
		}
		wants("a call", "replica_beat answered")
		_, _ = f.Get(ctx, uuid.New())
		wants("a refusal by the script", "session_get answered")
		f.Check(ctx, []cluster.ID{uuid.New(), uuid.New()})
		wants("calls in a pipeline", "session_check answered")

		gone, leave := context.WithCancel(ctx)
		leave()
		_ = f.Beat(gone, "r-1/a")
		wants("a caller that has left", "replica_beat canceled")

		f.isSilent.Store(true)
		bounded, cancel := context.WithTimeout(ctx, flakyTimeout)
		defer cancel()
		_ = f.Beat(bounded, "r-1/a")
		wants("a silent store", "replica_beat timeout")
		if log.took != flakyTimeout {
			t.Errorf("a silent store: took %v, want %v", log.took, flakyTimeout)
		}
		for range 10 { // until the breaker is open
			bounded, cancel := context.WithTimeout(ctx, flakyTimeout)
			_ = f.Beat(bounded, "r-1/a")
			cancel()
		}
		if got := log.heard(); got[len(got)-1] != "replica_beat not_made" {
			t.Errorf("a store that does not answer: %q", got)
		}
	})
	inFlaky(t, func(t *testing.T, f *flaky) {
		log := &callLog{}
		f.Observe(log)
		f.refuses.Store(true)
		_ = f.Beat(t.Context(), "r-1/a")
		if got := log.heard(); !slices.Equal(got, []string{"replica_beat failed"}) {
			t.Errorf("nothing listens: %q", got)
		}
	})
}
