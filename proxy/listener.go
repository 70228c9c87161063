package proxy

import (
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// maxQueued is how much waits for a listener's client before its stream is cut, in bytes. The client comes back and goes on where it
// was.
const maxQueued = 4 << 20

// maxAhead is how much of that may be there when the follower reads more, in bytes: about as much as the store keeps by default, so that a
// client that takes all that it gets has all at the next look.
const maxAhead = 1 << 20

// listener is the client's end of a stream whose events are in the store: a session's own stream, or an answer that is resumed. Its
// events come from a reader of this replica, or from the follower.
type listener struct {
	session cluster.ID
	id      eventID // of the last event that was taken in, or of where the stream begins; events have mu
	number  int64   // of a listener to the own stream: the latest is the one that is sent to
	call    *upstreamCall
	lease   *cluster.Lease // the listener's to release
	news    signal

	mu      sync.Mutex
	queue   []byte     // text for the client
	over    bool       // nothing follows
	until   int64      // the last position that is for it, where another listener begins; 0: there is no other
	fed     bool       // a reader of this replica gives it events as they come
	opened  time.Time  // when it was opened
	heard   time.Time  // when there last was something
	looked  time.Time  // when the follower last looked
	failed  mcp.Reason // why an answer could not be resumed; empty: it could
	onEnded func()     // may be nil
	onLeave func()
}

func newListener(call *upstreamCall, lease *cluster.Lease, id eventID) *listener {
	now := time.Now()
	return &listener{session: call.current().ID, id: id, call: call, lease: lease, news: newSignal(), opened: now, heard: now}
}

// isOwn reports whether it is the session's own stream that is listened to.
func (l *listener) isOwn() bool { return l.id.stream == cluster.OwnStream }

// prime lets a client know where it is before there is any event, also one that resumes: official clients forget what they have told when
// the connection breaks before it has brought an event, and it may go on elsewhere than there. retry is what to tell about coming back,
// in ms; it may be empty.
func (l *listener) prime(revision, retry string) {
	if !mcp.Primes(revision) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.id
	id.listener = l.number
	l.write(mcp.Event{ID: id.String(), Retry: retry})
}

// write queues an event. The caller holds l.mu.
func (l *listener) write(e mcp.Event) {
	if text, err := mcp.AppendEvent(l.queue, e); err == nil { // of what a reader of events has read
		l.queue = text
	}
}

// offer gives the listener events from one place, of which the first is at a position; of its session's own stream also a claim that none
// of them was read before. It reports whether they follow on what it has: if not, it must be given those in between first.
func (l *listener) offer(first, claim int64, from origin, events ...[]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first > l.id.position+1 {
		return false
	}
	if l.over {
		return true
	}
	for i, text := range events {
		if position := first + int64(i); position > l.id.position && (l.until == 0 || position <= l.until) {
			l.id.position, l.id.claim = position, claim
			l.id.from = from.sealed(position)
			l.take1(decodeKept(text))
		}
	}
	l.heard = time.Now()
	if len(l.queue) > maxQueued || l.until != 0 && l.id.position >= l.until {
		l.over = true
	}
	l.news.wake()
	return true
}

// take1 takes in the event that has l.id. The caller holds l.mu.
func (l *listener) take1(e keptEvent) {
	switch e.kind {
	case keptEnd:
		l.over = true
	case keptMessage:
		l.lease.Touch()
		if l.id.request != "" {
			msg, err := mcp.Peek(e.data)
			l.id.last = err == nil && msg.Kind == mcp.KindResponse && msg.ID == l.id.request
			l.over = l.over || l.id.last
		}
		l.write(mcp.Event{ID: l.id.String(), Name: e.name, Data: e.data})
	}
}

// fail answers the request whose stream cannot be resumed, and ends the stream. A stream that answers none just ends.
func (l *listener) fail(reason mcp.Reason, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.failed = reason
	if l.id.request != "" {
		l.id.last = true // a client that wants more is told that there is none
		l.id.position++
		l.write(mcp.Event{ID: l.id.String(), Data: mcp.EncodeError(l.id.request, mcp.Error{
			Code: mcp.HTTPCode(statusOf(reason)), Message: message, Reason: reason,
		})})
	}
	l.over = true
	l.news.wake()
}

// resumption is what became of resuming an answer.
func (l *listener) resumption() Resumption {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.failed {
	case mcp.ReasonEventsGone:
		return ResumptionEventsGone
	case mcp.ReasonMayHaveRun:
		return ResumptionMayHaveRun
	default:
		return ResumptionResumed
	}
}

// statusOf is the HTTP status that goes with the reason why a stream cannot be resumed.
func statusOf(reason mcp.Reason) int {
	if reason == mcp.ReasonEventsGone {
		return http.StatusGone
	}
	return http.StatusServiceUnavailable
}

// end ends the stream.
func (l *listener) end() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.news.wake()
}

// endAt ends the stream when it has come to a position: what follows is for another listener. It reports whether it has.
func (l *listener) endAt(position int64) (ended bool) {
	l.mu.Lock()
	l.until = position
	l.over = l.over || l.id.position >= position
	ended = l.over
	l.mu.Unlock()
	l.news.wake()
	return ended
}

// isEnding reports whether another listener has come after it.
func (l *listener) isEnding() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until != 0
}

// feed says whether a reader of this replica gives it events.
func (l *listener) feed(is bool) {
	l.mu.Lock()
	l.fed = is
	l.mu.Unlock()
}

func (l *listener) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// watch returns a lease on the session for what outlives the listener; nil when it is over.
func (l *listener) watch() *cluster.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil // its own may be released already
	}
	return l.lease.Watch()
}

func (l *listener) at() int64 { return l.has().position }

// has is the last event that it has.
func (l *listener) has() eventID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// leaseEnded ends the stream because its lease has: the session is over, or the store was away for too long, after which the client may
// come back.
func (l *listener) leaseEnded() {
	if l.onEnded != nil {
		l.onEnded()
	}
	if l.lease.SessionEnded() {
		l.lost()
	} else {
		l.end()
	}
}

// lost ends the stream of a session that is over.
func (l *listener) lost() { l.fail(mcp.ReasonMayHaveRun, cutByEnd+"; the request may have run") }

// take implements source.
func (l *listener) take(dst []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	dst = append(dst, l.queue...)
	l.queue = nil
	if l.over {
		return dst, io.EOF
	}
	return dst, nil
}

// more implements source.
func (l *listener) more() <-chan struct{} { return l.news }

// leave implements source.
func (l *listener) leave(bool) {
	l.end()
	l.lease.Release()
	l.onLeave()
}

// hasRoom reports whether the follower may read more for the client.
func (l *listener) hasRoom() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) <= maxAhead
}

// due reports whether the follower should look, and takes note that it does. What has been silent for long is looked at every quiet only.
func (l *listener) due(now time.Time, quiet time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	isQuiet := now.Sub(l.heard) > quietAfter
	if l.over || l.fed || isQuiet && now.Sub(l.looked) < quiet {
		return false
	}
	l.looked = now
	return true
}

const (
	// quietAfter is how long a stream must be silent to count as quiet. Of those quietAtOnce are looked at a second, about, so that
	// idle streams cost the store little, however many there are.
	quietAfter  = 10 * time.Second
	quietAtOnce = 10_000
)
