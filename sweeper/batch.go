package sweeper

import (
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// A script of the sweep holds up everybody else, so it should take no longer than a few of their calls; nor so short that the
// pauses between scripts are all there is. Sizes that take 100 to 250 µs of the server's time are left alone: a session costs a
// little more among a million than among a thousand, and a sweep should not take longer for that.
const (
	shortScript = 100 * time.Microsecond
	longScript  = 250 * time.Microsecond
	// firstBatch takes about 200 µs where Redis has a core of its own. smallBatch is not undercut.
	firstBatch = 12
	smallBatch = 5
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

// took takes in what a script took of the server's time, where the server tells. One that was not full can only tell that more
// would be too much.
func (b *batch) took(swept cluster.Swept) {
	if swept.Took == 0 || !swept.More && swept.Took <= longScript {
		return
	}
	b.long, b.short = tend(b.long, swept.Took > longScript), tend(b.short, swept.Took < shortScript)
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
