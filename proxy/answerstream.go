package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

const (
	// maxUnread is how much of a stream waits for its client before its upstream has to wait, in bytes.
	maxUnread = 256 << 10
	// maxUnkept is how much of a stream is held while it is not stored: more of it is stored early, and while the store is
	// away and the client gone the oldest is given up.
	maxUnkept = 1 << 20
	// settleTime is how long an answer that has just begun waits for its first message, so that they leave together.
	settleTime = 2 * time.Millisecond
)

// answerStream is the answer to one request that is a stream of events. This replica reads it from the upstream to its end,
// whether or not its client stays. It is in memory first; when it may be needed elsewhere (the client is gone, this replica
// stops, or it is older than Config.KeepAfter) all of it is stored, and from then on each event before the client sees it.
type answerStream struct {
	call    *upstreamCall
	lease   *cluster.Lease // the stream's to release
	request mcp.Message
	name    string
	owner   string
	asks    int64 // the generation of the upstream session that answers
	primes  bool  // the client knows what to do with an event without data
	cancel  context.CancelCauseFunc
	news    signal // for the client's side
	room    signal // for the upstream's side: the client has taken something, or left

	unanswered []mcp.ID // requests that the upstream has not answered yet; run's alone

	storing sync.Mutex // one at a time stores

	mu      sync.Mutex
	events  []answerEvent // what may still be needed, without a gap
	last    int64         // the position of the last event
	offered int64         // the last position that the client may have
	taken   int64         // the last position that the client was given
	stored  int64         // the last position that the store has, or never will
	unread  int           // bytes of events that the client was not given yet
	unkept  int           // bytes of events that are not stored
	retry   string        // what the upstream said about coming back, to be passed on
	keeping bool          // events are stored before they are offered
	left    bool          // the client takes no more
	over    bool          // there will be no more
	marked  bool          // the last event says so
}

type answerEvent struct {
	keptEvent
	retry string
	last  bool // it is the response
}

// newAnswerStream returns the stream whose events come from body, for the client to read; run reads them.
func newAnswerStream(call *upstreamCall, lease *cluster.Lease, request mcp.Message, cancel context.CancelCauseFunc) *answerStream {
	p := call.p
	s := &answerStream{
		call: call, lease: lease, request: request, cancel: cancel,
		asks: call.current().Generation(), owner: p.owner, name: answerStreamName(p.owner, p.answers.Add(1)),
		primes: mcp.Primes(lease.Session().Revision),
		news:   newSignal(), room: newSignal(),
	}
	if request.Kind == mcp.KindRequest {
		s.unanswered = []mcp.ID{request.ID}
	}
	s.appendLocked(answerEvent{keptEvent: keptEvent{kind: keptBegun}}) // nobody else has it yet
	s.offered = s.last
	return s
}

// run reads the answer to its end, and lets go of the lease.
func (s *answerStream) run(ctx context.Context, body io.ReadCloser) {
	p := s.call.p
	defer s.lease.Release()
	defer s.cancel(nil)
	timer := time.AfterFunc(p.cfg.KeepAfter, s.keep)
	defer timer.Stop()

	upstream := answerReader{stream: s}
	upstream.read(ctx, body)
	for len(s.unanswered) > 0 && upstream.mayGoOn(ctx) {
		if body = upstream.reopen(ctx); body != nil {
			upstream.read(ctx, body)
		}
	}
	s.answerLost(context.Cause(ctx))
	s.finish(ctx)
}

// answerLost answers the requests that the upstream has left unanswered. cause is why it was read no further; nil: it has ended.
func (s *answerStream) answerLost(cause error) {
	why := "the connection to the upstream was lost before it answered"
	switch {
	case errors.Is(cause, errDraining):
		why = cutByDrain
	case errors.Is(cause, errSessionEnded):
		why = cutByEnd
	}
	for _, id := range s.unanswered {
		lost := mayHaveRun(id, why)
		s.call.recordEvent(cluster.FromProxy, lost, true)
		s.put(answerEvent{keptEvent: keptEvent{kind: keptMessage, data: lost}, last: s.request.Kind == mcp.KindRequest})
	}
}

// mayHaveRun is the answer to a request whose own answer is lost.
func mayHaveRun(id mcp.ID, what string) []byte {
	return mcp.EncodeError(id, mcp.Error{
		Code:    mcp.HTTPCode(http.StatusServiceUnavailable),
		Message: what + "; the request may have run",
		Reason:  mcp.ReasonMayHaveRun,
	})
}

// add takes in an event when the client has taken most of what there is. It returns false when ctx ends before that: the event is lost.
func (s *answerStream) add(ctx context.Context, e answerEvent) bool {
	for !s.hasRoom() {
		select {
		case <-s.room:
		case <-ctx.Done():
			return false
		}
	}
	s.put(e)
	return true
}

// put takes in an event.
func (s *answerStream) put(e answerEvent) {
	s.mu.Lock()
	s.appendLocked(e)
	keeping := s.keeping || s.unkept > maxUnkept
	s.keeping = keeping
	s.mu.Unlock()
	if keeping && s.store() != nil { // what could not be stored is with the next event, or at the end
		s.giveUp()
	}
	s.offer()
}

func (s *answerStream) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left || s.unread <= maxUnread
}

// appendLocked puts an event at the end, not offered yet. The caller holds s.mu.
func (s *answerStream) appendLocked(e answerEvent) {
	s.events = append(s.events, e)
	s.last++
	s.unread += len(e.data)
	s.unkept += len(e.data)
}

// finish marks the end. Where the stream is stored, its end is, too.
func (s *answerStream) finish(ctx context.Context) {
	s.mu.Lock()
	s.over = true
	s.endLocked()
	s.mu.Unlock()
	s.keepEnd(ctx)
	s.offer()
}

// at returns the event at a position. The caller holds s.mu.
func (s *answerStream) at(position int64) answerEvent {
	return s.events[int64(len(s.events))-1-(s.last-position)]
}

// forget drops what nobody needs any more. The caller holds s.mu.
func (s *answerStream) forget() {
	needed := s.stored
	if !s.left {
		needed = min(s.stored, s.taken)
	}
	for first := s.last - int64(len(s.events)) + 1; first <= needed; first++ {
		s.events[0] = answerEvent{}
		s.events = s.events[1:]
	}
}
