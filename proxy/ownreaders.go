package proxy

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// checkInterval is how often the store is asked whether what this replica reads is still its to read, and whose client listens.
	checkInterval = 5 * time.Second
	// blindReading is for how long after the store last answered a stream without a client here is read on: it may be
	// another's by then, whom the upstream refuses as long as this one reads. One answer that is late must not stop all readers: the
	// store is asked again every tendInterval.
	blindReading = 8 * time.Second
	// maxDoubted bounds how many streams are in doubt. Of more than that some are read by nobody until this replica is asked for them.
	maxDoubted = 10_000
)

// ownReaders are those of this replica, one for each session at most.
type ownReaders struct {
	mu      sync.Mutex
	all     map[cluster.ID]*ownReader
	opening map[cluster.ID]chan struct{} // closed when whoever asks the upstream for the stream is done
	doubted map[cluster.ID]struct{}      // streams that this replica may hold the claim to read, and does not
}

func newOwnReaders() *ownReaders {
	return &ownReaders{
		all: make(map[cluster.ID]*ownReader), opening: make(map[cluster.ID]chan struct{}), doubted: make(map[cluster.ID]struct{}),
	}
}

// doubt takes note that this replica may hold the claim to a stream that it does not read. While it lives, nobody else would.
func (o *ownReaders) doubt(id cluster.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.doubted) < maxDoubted {
		o.doubted[id] = struct{}{}
	}
}

// doubts are the streams in doubt.
func (o *ownReaders) doubts() []cluster.ID {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.doubted))
}

// clear says that there is no doubt any more.
func (o *ownReaders) clear(id cluster.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.doubted, id)
}

// checkOwn asks the store about the streams that this replica reads, and reports whether it has answered.
func (p *Proxy) checkOwn(ctx context.Context, now time.Time) bool {
	readers := p.own.list()
	if len(readers) == 0 {
		return true
	}
	ids := make([]cluster.ID, len(readers))
	for i, r := range readers {
		ids[i] = r.call.current().ID
	}
	answered := true
	for i, state := range p.sessions.StreamStates(ctx, ids) {
		readers[i].check(state, now)
		answered = answered && !errors.Is(state.Err, cluster.ErrStoreUnavailable)
	}
	return answered
}

// tendOwn looks after the streams that this replica reads, and after those that it only may hold the claim to.
func (p *Proxy) tendOwn(ctx context.Context, now time.Time) {
	for _, r := range p.own.list() {
		r.look(ctx, now)
	}
	doubts := p.own.doubts()
	if len(doubts) == 0 {
		return
	}
	for i, state := range p.sessions.StreamStates(ctx, doubts) {
		if state.Err == nil || errors.Is(state.Err, cluster.ErrNotFound) {
			p.settle(ctx, doubts[i], state)
		}
	}
}

// settle lets go of a stream that this replica has the claim to and does not read.
func (p *Proxy) settle(ctx context.Context, id cluster.ID, state cluster.StreamState) {
	endTurn, free := p.own.tryTurn(id)
	if !free {
		return // somebody is about to read it; another time
	}
	defer endTurn()
	if state.Err == nil && state.Reader == p.incarnation && p.own.of(id) == nil {
		err := p.sessions.ReleaseStream(ctx, id, state.Claim)
		if errors.Is(err, cluster.ErrStoreUnavailable) {
			return
		}
	}
	p.own.clear(id)
}

// turn waits until nobody else asks for a session's stream. The caller ends its turn.
func (o *ownReaders) turn(ctx context.Context, id cluster.ID) (end func(), err error) {
	for {
		end, free := o.tryTurn(id)
		if free {
			return end, nil
		}
		o.mu.Lock()
		other := o.opening[id]
		o.mu.Unlock()
		if other == nil {
			continue // it has just ended
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryTurn is turn for callers that do not wait.
func (o *ownReaders) tryTurn(id cluster.ID) (end func(), free bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.opening[id] != nil {
		return nil, false
	}
	mine := make(chan struct{})
	o.opening[id] = mine
	return func() {
		o.mu.Lock()
		delete(o.opening, id)
		o.mu.Unlock()
		close(mine)
	}, true
}

func (o *ownReaders) of(id cluster.ID) *ownReader {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[id]
}

func (o *ownReaders) add(r *ownReader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[r.call.current().ID] = r
}

func (o *ownReaders) remove(r *ownReader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if id := r.call.current().ID; o.all[id] == r {
		delete(o.all, id)
	}
}

func (o *ownReaders) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.all)
}

func (o *ownReaders) list() []*ownReader {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]*ownReader, 0, len(o.all))
	for _, r := range o.all {
		all = append(all, r)
	}
	return all
}
