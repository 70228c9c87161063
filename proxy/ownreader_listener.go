package proxy

import (
	"time"
)

// attach makes l the one that events are passed on to, unless a later one is. The one before is left to the follower, which gives it what it
// lacks.
func (r *ownReader) attach(l *listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.listener != nil && r.listener.number > l.number { // it was opened while l was on its way here
		return
	}
	if r.listener != nil && r.listener != l {
		r.letGo()
	}
	if l.at() > r.last || isAhead(l, r.began) { // of what it has, this reader knows nothing: its client is told when it comes back
		l.end()
	}
	if l.isOver() { // its client may have left, and says so only once
		r.detach()
		return
	}
	r.listener = l
	l.feed(l.at() == r.last)
}

// feed passes an event on to this replica's client.
func (r *ownReader) feed(position int64, event unstored) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offer(position, event)
}

// offer is feed for callers that hold r.mu. A listener that lacks what came before gets it from the store.
func (r *ownReader) offer(first int64, events ...unstored) {
	if r.listener == nil {
		return
	}
	for i, e := range events {
		r.listener.feed(r.listener.offer(first+int64(i), r.claim, e.from, e.text))
	}
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

// unfeed leaves the listener, if there is one, to the follower, and takes no other.
func (r *ownReader) unfeed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if r.listener != nil {
		r.letGo()
	}
}

// letGo leaves the listener to the follower. The caller holds r.mu.
func (r *ownReader) letGo() {
	r.listener.feed(false)
	r.detach()
}
