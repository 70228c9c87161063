package sweeper

import (
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// A script of the sweep holds up everybody else, so it should take no longer than a few of their calls: 180 µs of the server's
// time. Where the machine is so busy that scripts come less often than the pauses between them would let them, each may take
// a thirtieth of the time from one to the next. Sizes that take more than two fifths of that are left alone: a session costs a
// little more among a million than among a thousand, and a sweep should not take longer for that.
const (
	longScript    = 180 * time.Microsecond
	longestScript = 600 * time.Microsecond
	// firstBatch takes about 130 µs where Redis has a core of its own. smallBatch is not undercut.
	firstBatch = 8
	smallBatch = 4
	// opinion is by how many scripts those that took too long, or not long enough, must outnumber the others for the size to be
	// changed: one may have been held up itself.
	opinion = 4
)

// batch is how many sessions of a kind one script takes: as many as the server's time allows.
type batch struct {
	most, size int
	long       int // scripts that took too long, less those that did not, since the size was changed; never below 0
	short      int // likewise
}

func newBatch(most int) batch { return batch{most: most, size: min(most, firstBatch)} }

// took takes in what a script took of the server's time, where the server tells, and how long after the one before it was
// sent, 0 for the first. One that was not full can only tell that more would be too much.
func (b *batch) took(swept cluster.Swept, gap time.Duration) {
	long := min(max(gap/30, longScript), longestScript)
	if swept.Took == 0 || !swept.More && swept.Took <= long {
		return
	}
	b.long, b.short = tend(b.long, swept.Took > long), tend(b.short, swept.Took < long*2/5)
	switch size := b.size; {
	case b.long == opinion:
		*b = batch{most: b.most, size: max(size-size/4, min(smallBatch, b.most))}
	case b.short == opinion:
		*b = batch{most: b.most, size: min(size+max(size/4, 1), b.most)}
	}
}

func tend(n int, agrees bool) int {
	if agrees {
		return n + 1
	}
	return max(n-1, 0)
}
