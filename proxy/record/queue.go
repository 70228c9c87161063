package record

import (
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// queue holds what waits to be written, in bounds: so many entries and bytes in all, a quarter of both of one session.
type queue struct {
	maxCount, maxBytes int

	mu       sync.Mutex
	sessions map[cluster.ID]*backlog
	order    []*backlog // the session that waits the longest first
	count    int        // what is being written counts, too
	bytes    int
}

// backlog is what one session's recording has waiting.
type backlog struct {
	session cluster.ID
	entries []queued
	bytes   int
}

// queued is an entry that waits.
type queued struct {
	Entry

	at time.Time
}

// ofSession is the part of the queue that one session may fill.
const ofSession = 4

// add puts an entry at the end, unless there is no room.
func (q *queue) add(id cluster.ID, e queued) bool {
	size := len(e.Payload)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count >= q.maxCount || q.bytes+size > q.maxBytes {
		return false
	}
	b := q.sessions[id]
	if b == nil {
		b = &backlog{session: id}
		if q.sessions == nil {
			q.sessions = make(map[cluster.ID]*backlog)
		}
		q.sessions[id] = b
		q.order = append(q.order, b)
	}
	if len(b.entries) >= max(q.maxCount/ofSession, 1) || b.bytes+size > q.maxBytes/ofSession {
		return false
	}
	b.entries = append(b.entries, e)
	b.bytes += size
	q.count++
	q.bytes += size
	return true
}

// take takes everything out. What is taken keeps its place until it is done.
func (q *queue) take() []*backlog {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.order
	q.order = nil
	clear(q.sessions)
	return taken
}

// done gives the places of entries free.
func (q *queue) done(entries []queued) {
	bytes := 0
	for _, e := range entries {
		bytes += len(e.Payload)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.count -= len(entries)
	q.bytes -= bytes
}
