package proxy

import (
	"io"
	"sync/atomic"
	"time"
)

// source is where the events of one client's stream come from.
type source interface {
	// take appends the text of the events that there are to dst. io.EOF with it means that none will follow.
	take(dst []byte) ([]byte, error)
	// more is signalled when take may have something.
	more() <-chan struct{}
	// leave is called once, at the end. gone says that the client has left, so that it may not have got what was taken; else it has, or
	// will take no more.
	leave(gone bool)
}

// streamBody is the body of an answer that is a stream of events. Its Read waits for events, but not for ever: it comments on
// long silence, and ends when the source, the client or the replica does.
type streamBody struct {
	source    source
	keepAlive time.Duration   // silence after which a comment is sent; 0: none
	settle    time.Duration   // how long the first Read lets events come together
	gone      <-chan struct{} // the client has left
	ended     <-chan struct{} // the source must not go on; nil: it knows by itself
	drained   <-chan struct{} // the client is to come back, to another replica; nil: it may stay
	expires   time.Time       // the client is not to be believed any longer then; zero: never
	onEnded   func()          // has the source end, when ended is closed; what it still says is passed on
	open      *atomic.Int64   // streams like this one; one less when it is closed

	rest []byte // taken, not read yet
	err  error
	left bool
}

// comeBackAfter is when a client comes back that is told to, in ms; comeBack is what tells it.
const (
	comeBackAfter = "200"
	comeBack      = "retry: " + comeBackAfter + "\n\n"
)

// comment is sent in silence. Readers of server-sent events pass over it.
const comment = ": keep-alive\n\n"

// Read implements io.Reader.
func (b *streamBody) Read(p []byte) (int, error) {
	if b.settle > 0 {
		b.wait(b.settle)
		b.settle = 0
	}
	for len(b.rest) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		if b.hasExpired() { // also where there is always more
			b.sendBack()
			continue
		}
		if b.rest, b.err = b.source.take(nil); len(b.rest) > 0 || b.err != nil {
			continue
		}
		if !b.wait(b.keepAlive) && b.err == nil {
			b.rest = []byte(comment)
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// wait waits until there may be more, or for a time when that is not 0; then it returns false.
func (b *streamBody) wait(silence time.Duration) bool {
	var silent <-chan time.Time
	if silence > 0 {
		timer := time.NewTimer(silence)
		defer timer.Stop()
		silent = timer.C
	}
	var expired <-chan time.Time
	if !b.expires.IsZero() {
		timer := time.NewTimer(time.Until(b.expires))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-b.source.more():
		return true
	case <-b.ended:
		b.ended = nil
		b.onEnded()
		return true
	case <-b.gone:
		b.err = io.ErrClosedPipe
	case <-b.drained:
		b.sendBack()
	case <-expired:
		b.sendBack()
	case <-silent:
	}
	return false
}

// sendBack ends the stream and has the client come back: to another replica, or with a new token.
func (b *streamBody) sendBack() { b.rest, b.err = []byte(comeBack), io.EOF }

// hasExpired reports whether the stream must not go on.
func (b *streamBody) hasExpired() bool {
	return !b.expires.IsZero() && !time.Now().Before(b.expires)
}

// Close implements io.Closer.
func (b *streamBody) Close() error {
	if !b.left {
		b.left = true
		b.open.Add(-1)
		gone := false
		select {
		case <-b.gone:
			gone = true
		default:
		}
		b.source.leave(gone)
	}
	return nil
}

// signal is a wake-up that is never lost and never blocks.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) wake() {
	select {
	case s <- struct{}{}:
	default:
	}
}
