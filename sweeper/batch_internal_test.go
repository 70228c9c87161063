package sweeper

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// server is one whose scripts take so long for each session.
type server time.Duration

// sweeps lets full batches run, and returns how large they are in the end.
func (s server) sweeps(b *batch, n int) int {
	for range n {
		b.took(cluster.Swept{Took: time.Duration(b.size) * time.Duration(s), More: true}, pace)
	}
	return b.size
}

func TestBatchesAreAsLargeAsTheServersTimeAllows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		each        time.Duration
		least, most int
	}{
		"the server does not tell":    {0, firstBatch, firstBatch},
		"as expected":                 {14 * time.Microsecond, firstBatch, firstBatch},
		"a quarter dearer":            {18 * time.Microsecond, firstBatch, firstBatch},
		"twice as dear":               {28 * time.Microsecond, 4, 6},
		"cheap":                       {2 * time.Microsecond, 35, 45},
		"cheaper than batches may be": {100 * time.Nanosecond, 100, 100},
		"far too dear":                {time.Millisecond, smallBatch, smallBatch},
	} {
		b := newBatch(100)
		if got := server(c.each).sweeps(&b, 100); got < c.least || got > c.most {
			t.Errorf("%s: batches of %d, want %d to %d", name, got, c.least, c.most)
		}
		if got := server(14*time.Microsecond).sweeps(&b, 100); got < 5 || got > 13 {
			t.Errorf("%s, and then as expected: batches of %d", name, got)
		}
	}
}

func TestAFewSlowScriptsAreNoReasonForSmallBatches(t *testing.T) {
	t.Parallel()
	b := newBatch(100)
	for range 50 {
		b.took(cluster.Swept{Took: time.Second, More: true}, pace)
		b.took(cluster.Swept{Took: time.Second, More: true}, pace)
		server(14*time.Microsecond).sweeps(&b, 3)
	}
	if b.size != firstBatch {
		t.Errorf("batches of %d, want %d", b.size, firstBatch)
	}
}

func TestScriptsThatComeSeldomMayTakeLonger(t *testing.T) {
	t.Parallel()
	b := newBatch(100)
	for range 100 {
		b.took(cluster.Swept{Took: time.Duration(b.size) * 20 * time.Microsecond, More: true}, 3*pace)
	}
	if b.size < firstBatch*5/4 {
		t.Errorf("batches of %d, want more than %d", b.size, firstBatch)
	}
	for range 100 {
		b.took(cluster.Swept{Took: time.Duration(b.size) * 20 * time.Microsecond, More: true}, time.Minute)
	}
	if took := time.Duration(b.size) * 20 * time.Microsecond; took > longestScript {
		t.Errorf("scripts of %v, want at most %v", took, longestScript)
	}
}

func TestBatchesThatWereNotFullTellOnlyOfTooMuch(t *testing.T) {
	t.Parallel()
	b := newBatch(100)
	for range 100 {
		b.took(cluster.Swept{Took: time.Microsecond}, pace)
	}
	if b.size != firstBatch {
		t.Errorf("batches of %d after many that were not full, want %d", b.size, firstBatch)
	}
	for range 100 {
		b.took(cluster.Swept{Took: time.Millisecond}, pace)
	}
	if b.size != smallBatch {
		t.Errorf("batches of %d after many that took too long, want %d", b.size, smallBatch)
	}
}

func TestBatchesAreNeverLargerThanTheyMayBe(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 3, 20} {
		b := newBatch(most)
		if got := server(time.Microsecond).sweeps(&b, 100); got != most {
			t.Errorf("batches of %d, want %d", got, most)
		}
		if got := server(time.Millisecond).sweeps(&b, 100); got != min(most, smallBatch) {
			t.Errorf("batches of %d where they take too long, want %d", got, min(most, smallBatch))
		}
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
