package sweeper

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestBatchesAreAsLargeAsTheServersTimeAllows(t *testing.T) {
	t.Parallel()
	b := batch{most: 100, size: 100}
	for i, step := range []struct {
		took time.Duration
		more bool
		want int
	}{
		{0, true, 100},                  // the server does not tell
		{scriptBudget, true, 100},       // just so
		{scriptBudget + 1, true, 50},    // too long
		{scriptBudget + 1, false, 25},   // though it was the last
		{scriptBudget / 2, true, 25},    // good as it is
		{scriptBudget/2 - 1, true, 35},  // there is room
		{scriptBudget/2 - 1, false, 35}, // it was not full: says nothing
		{time.Second, true, 17},         // far too long
		{time.Second, true, 8},          //
		{time.Second, true, 4},          //
		{time.Second, true, 2},          //
		{time.Second, true, 1},          //
		{time.Second, true, 1},          // never none
		{0, true, 11},                   //
		{scriptBudget/2 - 1, true, 21},  //
	} {
		if b.took(cluster.Swept{Took: step.took, More: step.more}); b.size != step.want {
			t.Errorf("step %d: %d, want %d", i, b.size, step.want)
		}
	}
	for range 20 {
		b.took(cluster.Swept{More: true})
	}
	if b.size != 100 {
		t.Errorf("%d in the end, want no more than 100", b.size)
	}
	b = batch{most: 5, size: 2}
	if b.took(cluster.Swept{More: true}); b.size != 3 {
		t.Errorf("small batches do not grow: %d", b.size)
	}
}

func TestTheHighestFenceCounts(t *testing.T) {
	t.Parallel()
	fence := func(n int64) error { return &cluster.FencedError{Epoch: n} }
	for _, c := range []struct {
		err  error
		want int64
	}{
		{nil, 0},
		{cluster.ErrStoreUnavailable, 0},
		{fence(3), 3},
		{errors.Join(fence(3), nil, fence(9), cluster.ErrStoreUnavailable, fence(5)), 9},
		{errors.Join(cluster.ErrStoreUnavailable), 0},
	} {
		if got, isFenced := highestFence(c.err); got != c.want || isFenced != (c.want > 0) {
			t.Errorf("%v: %d, %v; want %d", c.err, got, isFenced, c.want)
		}
	}
}
