package proxy

import (
	"time"
)

// attach makes l the one that events are passed on to.
func (r *ownReader) attach(l *listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		r.listener.end() // l is a later one
	}
	l.claimed(r.claim, r.resumable())
	if l.isOver() { // its client has left, and says so only once
		r.detach()
		return
	}
	r.listener = l
	l.feed(l.at() == r.last)
}

// feed passes events on to this replica's client.
func (r *ownReader) feed(first int64, events [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offer(first, events)
}

// offer is feed for callers that hold r.mu. A listener that lacks what came before gets it from the store.
func (r *ownReader) offer(first int64, events [][]byte) {
	if r.listener != nil {
		r.listener.claimed(r.claim, r.resumable())
		r.listener.feed(r.listener.offer(first, events))
	}
}

// resumable is the version of the record whose upstream session the latest events are of, when that can be gone on with by an id of its
// own: a later reader gets the same events at the same positions. Else 0. The caller holds r.mu.
func (r *ownReader) resumable() int64 {
	if r.upstream == "" {
		return 0
	}
	return r.version
}

// detach is called when the listener is gone. The caller holds r.mu.
func (r *ownReader) detach() {
	r.listener, r.unheard = nil, time.Now()
}

// left is called by a listener that leaves.
func (r *ownReader) left(l *listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener == l {
		r.detach()
	}
}

func (r *ownReader) endListener() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		r.listener.end()
		r.detach()
	}
}

// unfeed leaves the listener, if there is one, to the follower.
func (r *ownReader) unfeed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		r.listener.feed(false)
		r.detach()
	}
}
