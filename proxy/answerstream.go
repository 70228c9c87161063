package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

const (
	// maxUpstreamEvent is the most bytes one event of an upstream may have. A stream with a longer one ends.
	maxUpstreamEvent = 32 << 20
	// maxUnread is how much of a stream waits for its client before its upstream has to wait, in bytes.
	maxUnread = 256 << 10
	// maxUnkept is how much of a stream is held while it is not stored: more of it is stored early, and while the store is
	// away and the client gone the oldest is given up.
	maxUnkept = 1 << 20
	// keepBatch is how many events one call of the store takes.
	keepBatch = 64
	// settleTime is how long an answer that has just begun waits for its first message, so that they leave together.
	settleTime = 2 * time.Millisecond
	// keepRetry is the first pause between attempts to store the end of a stream while the store is away, maxKeepRetry the longest. After
	// keepFor, as long as anything is kept by default, nobody could resume it any more.
	keepRetry    = 500 * time.Millisecond
	maxKeepRetry = 5 * time.Second
	keepFor      = 5 * time.Minute
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
	asks    int64 // after how many recoveries the session has the upstream session that answers
	primes  bool  // the client knows what to do with an event without data
	cancel  context.CancelCauseFunc
	news    signal // for the client's side
	room    signal // for the upstream's side: the client has taken something, or left

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
		asks: call.current().Recoveries(), owner: p.owner, name: answerStreamName(p.owner, p.answers.Add(1)),
		primes: mcp.Primes(lease.Session().Revision),
		news:   newSignal(), room: newSignal(),
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
	for !upstream.answered && upstream.mayGoOn(ctx) {
		if body = upstream.reopen(ctx); body != nil {
			upstream.read(ctx, body)
		}
	}
	if !upstream.answered && s.request.Kind == mcp.KindRequest && !errors.Is(context.Cause(ctx), errSessionEnded) {
		lost := mayHaveRun(s.request.ID, "the connection to the upstream was lost before it answered")
		s.call.recordEvent(cluster.FromProxy, lost, true)
		s.put(answerEvent{keptEvent: keptEvent{kind: keptMessage, data: lost}, last: true})
	}
	s.finish(ctx)
}

// mayHaveRun is the answer to a request whose own answer is lost.
func mayHaveRun(id mcp.ID, what string) []byte {
	return mcp.EncodeError(id, mcp.Error{
		Code:    mcp.HTTPCode(http.StatusServiceUnavailable),
		Message: what + "; the request may have run",
		Reason:  mcp.ReasonMayHaveRun,
	})
}

// answerReader reads one answer from its upstream. An upstream may close the connection before it has answered, and expect to be
// asked for the rest by the id of the last event it gave.
type answerReader struct {
	stream   *answerStream
	answered bool
	last     string        // the upstream's own id of the last event
	pause    time.Duration // before asking for the rest
	failures int           // in a row
}

// Bounds of asking an upstream for the rest of an answer.
const (
	resumePause    = 500 * time.Millisecond
	maxResumePause = 30 * time.Second
	maxResumes     = 5 // without an event in between
)

// read passes on what comes, up to the end of body.
func (u *answerReader) read(ctx context.Context, body io.ReadCloser) {
	defer func() { _ = body.Close() }() // only read
	u.pause = resumePause
	events := mcp.NewEventReader(body, maxUpstreamEvent)
	for {
		event, err := events.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				u.stream.call.log().Debug("an answer's stream broke off", "error", err)
			}
			return
		}
		u.failures = 0
		if event.ID != "" {
			u.last = event.ID
		}
		if ms, err := strconv.Atoi(event.Retry); err == nil {
			u.pause = min(time.Duration(ms)*time.Millisecond, maxResumePause)
		}
		if len(event.Data) == 0 {
			u.stream.passRetry(event.Retry)
			continue
		}
		response := false
		if u.stream.request.Kind == mcp.KindRequest && !u.answered && (event.Name == "" || event.Name == "message") {
			msg, err := mcp.Peek(event.Data)
			response = err == nil && msg.Kind == mcp.KindResponse && msg.ID == u.stream.request.ID
		}
		event.Data = asked(event, u.stream.asks)
		u.stream.lease.Touch()
		u.stream.call.recordEvent(cluster.FromUpstream, event.Data, response)
		if !u.stream.add(ctx, answerEvent{
			keptEvent: keptEvent{kind: keptMessage, name: event.Name, data: event.Data}, retry: event.Retry, last: response,
		}) {
			return
		}
		u.answered = u.answered || response
	}
}

// mayGoOn reports whether it makes sense to ask the upstream for the rest.
func (u *answerReader) mayGoOn(ctx context.Context) bool {
	return u.last != "" && ctx.Err() == nil && u.failures < maxResumes && u.stream.request.Kind == mcp.KindRequest
}

// reopen asks the upstream for the rest of the answer; nil when it does not give it now.
func (u *answerReader) reopen(ctx context.Context) io.ReadCloser {
	u.failures++
	select {
	case <-time.After(u.pause):
	case <-ctx.Done():
		return nil
	}
	body, err := u.stream.call.resume(ctx, u.last)
	if err != nil {
		if ctx.Err() == nil {
			u.stream.call.log().Debug("the upstream does not go on with an answer", "error", err)
		}
		if errors.Is(err, errNoSuchStream) {
			u.failures = maxResumes
		}
		return nil
	}
	return body
}

// passRetry passes on what the upstream said about coming back.
func (s *answerStream) passRetry(retry string) {
	if retry == "" {
		return
	}
	s.mu.Lock()
	s.retry = retry
	s.mu.Unlock()
	s.news.wake()
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

// giveUp drops the oldest of what could not be stored, when it is too much, but for what the client is still to be given. That leaves a
// hole, of which whoever resumes is told.
func (s *answerStream) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.unkept > maxUnkept && s.stored < s.last-1 && (s.left || s.stored < s.taken) {
		s.storedUpTo(s.stored + 1)
	}
}

// endLocked puts the end of a stream that is over behind its events, once, when somebody may ask the store for it. The caller holds
// s.mu.
func (s *answerStream) endLocked() {
	if s.over && !s.marked && (s.keeping || s.left) {
		s.marked = true
		s.appendLocked(answerEvent{keptEvent: keptEvent{kind: keptEnd}})
	}
}

// offer lets the client have all that there is.
func (s *answerStream) offer() {
	s.mu.Lock()
	s.offered = s.last
	s.mu.Unlock()
	s.news.wake()
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

// keepEnd stores what is not stored of a stream that is over and may be needed elsewhere. While the store is away it tries again.
func (s *answerStream) keepEnd(ctx context.Context) {
	wait := keepRetry
	for begun := time.Now(); ; wait = min(2*wait, maxKeepRetry) {
		s.mu.Lock()
		needed := s.keeping || s.left
		s.mu.Unlock()
		if !needed {
			return
		}
		err := s.store()
		if err == nil {
			return
		}
		s.offer()         // whoever listens here must not wait for the store
		s.lease.Release() // the request is answered, whether or not that is stored
		if time.Since(begun) > keepFor || !pause(ctx, wait) {
			s.call.log().Warn("the end of an answer could not be stored: nobody can resume it", "error", err)
			return
		}
	}
}

// keep stores all of the stream from now on.
func (s *answerStream) keep() {
	s.mu.Lock()
	s.keeping = true
	s.endLocked()
	over := s.over
	s.mu.Unlock()
	_ = s.store() // what could not be stored now is with the next event, or at the end
	if over {
		s.offer() // there is an end more
	}
}

// store stores what is not stored yet.
func (s *answerStream) store() error {
	s.storing.Lock()
	defer s.storing.Unlock()
	limit := keepBatch
	for {
		first, batch := s.unstored(limit)
		if len(batch) == 0 {
			return nil
		}
		_, err := s.call.p.sessions.Append(context.Background(), cluster.EventAppend{
			ID: s.call.session.ID, Stream: s.name, First: first, Events: batch,
		})
		switch {
		case errors.Is(err, cluster.ErrEventTooLarge) && limit > 1:
			limit = 1 // to find out which
			continue
		case errors.Is(err, cluster.ErrNotFound):
			// The session has ended: nobody will resume.
		case err != nil && !errors.Is(err, cluster.ErrEventTooLarge):
			return err
		}
		s.mu.Lock()
		s.storedUpTo(first + int64(len(batch)) - 1)
		s.mu.Unlock()
	}
}

// unstored returns the first events that are not stored, and the position of the first of them.
func (s *answerStream) unstored(limit int) (first int64, batch [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.stored + 1
	for position := first; position <= s.last && len(batch) < limit; position++ {
		batch = append(batch, s.at(position).encode())
	}
	return first, batch
}

// at returns the event at a position. The caller holds s.mu.
func (s *answerStream) at(position int64) answerEvent {
	return s.events[int64(len(s.events))-1-(s.last-position)]
}

// storedUpTo says that the store has, or never will have, the events up to a position. The caller holds s.mu.
func (s *answerStream) storedUpTo(position int64) {
	for s.stored < position {
		s.stored++
		s.unkept -= len(s.at(s.stored).data)
	}
	s.forget()
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

// take implements source.
func (s *answerStream) take(dst []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.taken < s.offered {
		s.taken++
		event := s.at(s.taken)
		s.unread -= len(event.data)
		dst = s.encode(dst, event)
	}
	if s.retry != "" {
		dst = append(append(append(dst, "retry: "...), s.retry...), "\n\n"...)
		s.retry = ""
	}
	s.forget()
	s.room.wake()
	if s.over && s.taken == s.last {
		return dst, io.EOF
	}
	return dst, nil
}

// encode appends an event as the client sees it. The caller holds s.mu; s.taken is the event's position.
func (s *answerStream) encode(dst []byte, event answerEvent) []byte {
	if event.kind == keptEnd || event.kind == keptBegun && !s.primes {
		return dst
	}
	id := eventID{stream: s.name, position: s.taken, request: s.request.ID, last: event.last}
	text, err := mcp.AppendEvent(dst, mcp.Event{ID: id.String(), Name: event.name, Data: event.data, Retry: event.retry})
	if err != nil { // a reader of events makes none of these
		return dst
	}
	return text
}

// more implements source.
func (s *answerStream) more() <-chan struct{} { return s.news }

// leave implements source. Unless the client has all of it, the rest is read and stored, for when it comes back.
func (s *answerStream) leave(gone bool) {
	s.mu.Lock()
	s.left = true
	complete := s.over && s.taken == s.last && !gone
	s.mu.Unlock()
	s.room.wake()
	if !complete {
		s.lease.Abandon()
		s.keep()
	}
}
