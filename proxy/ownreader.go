package proxy

import (
	"bytes"
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
	// ownReaderKeep is how long a session's own stream is read on after the last of this replica's clients left: as long as what is
	// stored of it is kept by default.
	ownReaderKeep = 5 * time.Minute
	// Pauses before an upstream is asked again for a session's own stream.
	reopenPause    = 200 * time.Millisecond
	maxReopenPause = 10 * time.Second
	// conflictWait is how long an upstream that refuses a second reader is asked again at once: it may not have noticed yet that the
	// reader before has died.
	conflictWait = 3 * time.Second
)

// ownReader reads one session's own stream from its upstream, for clients at all replicas: every message is stored first. At most one
// replica does that for a session; it holds the claim to.
type ownReader struct {
	p     *Proxy
	call  *upstreamCall
	lease *cluster.Lease // only watches
	claim int64
	stop  context.CancelCauseFunc

	mu       sync.Mutex
	body     io.Closer  // of the upstream's answer that is read now; nil between two
	asks     int64      // after how many recoveries the session has the upstream session whose answer that is
	listener *listener  // this replica's client, nil when there is none
	unheard  time.Time  // since when there is none
	last     int64      // the position of the last event
	backlog  []unstored // events that the store may not have yet, the last of them at last
	size     int        // bytes of backlog
	checked  time.Time  // when the store last said that the claim is still this reader's
	upstream string     // the upstream's own id of the last event
	version  int64      // of the record whose upstream session that belongs to
	known    int64      // the latest version of the record that the store has told of
}

// unstored is an event that the store may not have yet.
type unstored struct {
	text     []byte
	upstream string // the upstream's own id of it
}

// errStopReading ends a reader on purpose.
var errStopReading = errors.New("the session's own stream is read no more by this replica")

// run reads until the reader is stopped, or the upstream has no such stream any more. res is its answer to the first request.
func (r *ownReader) run(ctx context.Context, res *http.Response) {
	defer r.lease.Release()
	defer r.p.own.remove(r)
	defer r.unfeed()
	defer r.stop(nil)
	wait := reopenPause
	for {
		if res != nil {
			if r.read(ctx, res) {
				wait = reopenPause
			}
			res = nil
		}
		if !pause(ctx, jittered(wait)) {
			break
		}
		r.refresh(ctx)
		wait = min(2*wait, maxReopenPause)
		again, err := r.open(ctx)
		switch {
		case err == nil && isEventStream(again):
			res = again
		case err == nil:
			discard(again)
			if again.StatusCode < http.StatusInternalServerError && again.StatusCode != http.StatusConflict {
				r.endListener()
				r.release()
				return
			}
		case isSessionOver(err):
			r.endListener()
			return
		}
	}
	if !errors.Is(context.Cause(ctx), cluster.ErrStaleClaim) {
		r.release()
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

// release gives the claim up, so that another replica may go on at once.
func (r *ownReader) release() {
	ctx := context.Background() // the store's timeout bounds it
	_ = r.flush(ctx)
	err := r.p.sessions.ReleaseStream(ctx, r.call.current().ID, r.claim)
	if err != nil && !errors.Is(err, cluster.ErrNotFound) && !errors.Is(err, cluster.ErrStaleClaim) {
		r.p.own.doubt(r.call.current().ID)
		r.call.log().Debug("a session's own stream could not be let go yet", "error", err)
	}
}

// read stores and passes on what comes. It reports whether anything did.
func (r *ownReader) read(ctx context.Context, res *http.Response) (some bool) {
	r.reads(res.Body)
	defer func() {
		r.reads(nil)
		_ = res.Body.Close() // only read
	}()
	events := mcp.NewEventReader(res.Body, maxUpstreamEvent)
	for {
		event, err := events.Next()
		if err != nil {
			return some
		}
		some = true
		if len(event.Data) == 0 {
			r.mu.Lock()
			if event.ID != "" {
				r.upstream = event.ID
			}
			r.mu.Unlock()
			continue
		}
		r.lease.Touch()
		r.took(ctx, event)
	}
}

// reads says which body is read now: nobody gives the call another session meanwhile.
func (r *ownReader) reads(body io.Closer) {
	r.mu.Lock()
	r.body, r.asks = body, r.call.current().Recoveries()
	r.mu.Unlock()
}

// move has the stream opened anew when the session has been given another upstream session since, also where the connection to the
// one before still stands.
func (r *ownReader) move() {
	latest := r.lease.Current()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body != nil && latest.Version > r.call.current().Version {
		r.call.use(latest)
		_ = r.body.Close() // which ends its reading
	}
}

// refresh reads the session's record when the store has told of a later one: another replica may have recovered the session. Without
// it the upstream is asked in vain, which ends with the same record.
func (r *ownReader) refresh(ctx context.Context) {
	session := r.call.current()
	r.mu.Lock()
	isLatest := r.known <= session.Version
	r.mu.Unlock()
	if isLatest {
		return
	}
	if fresh, err := r.p.sessions.Get(ctx, session.ID); err == nil && fresh.Version > session.Version {
		r.call.use(fresh)
	}
}

// took takes in one message.
func (r *ownReader) took(ctx context.Context, event mcp.Event) {
	event.Data = asked(event, r.asks)
	r.call.recordEvent(cluster.FromUpstream, event.Data, false)
	text := keptEvent{kind: keptMessage, name: event.Name, data: event.Data}.encode()
	r.mu.Lock()
	r.last++
	r.backlog = append(r.backlog, unstored{text, event.ID})
	r.size += len(text)
	if event.ID != "" {
		r.upstream = event.ID
	}
	for r.size > maxUnkept && len(r.backlog) > 1 { // a hole, of which whoever resumes is told
		r.size -= len(r.backlog[0].text)
		r.backlog = r.backlog[1:]
	}
	position := r.last
	r.mu.Unlock()
	if err := r.flush(ctx); err != nil && ctx.Err() == nil {
		// The client that listens here must not wait for the store. That it has the event is told by its id, should it come back.
		r.feed(position, [][]byte{text})
	}
}

// flush stores what is not stored, and passes it on.
func (r *ownReader) flush(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock() // also orders what is stored
	for limit := keepBatch; len(r.backlog) > 0; {
		first := r.last - int64(len(r.backlog)) + 1
		texts, upstream := r.batch(limit)
		appended, err := r.p.sessions.Append(ctx, cluster.EventAppend{
			ID: r.call.current().ID, Stream: cluster.OwnStream, First: first, Events: texts, Claim: r.claim, UpstreamEvent: upstream,
		})
		switch {
		case errors.Is(err, cluster.ErrEventTooLarge) && len(texts) > 1:
			limit = 1 // to find out which
			continue
		case errors.Is(err, cluster.ErrStaleClaim), errors.Is(err, cluster.ErrNotFound):
			r.stop(err)
			return err
		case err != nil && !errors.Is(err, cluster.ErrEventTooLarge):
			return err
		}
		if l := r.listener; l != nil && err == nil && appended.Listener != l.number {
			l.end() // its client has opened another stream since
			r.detach()
		}
		r.offer(first, texts)
		for _, text := range texts {
			r.size -= len(text)
		}
		r.backlog = r.backlog[len(texts):]
	}
	return nil
}

// batch is what is to be stored next, and the upstream's own id of the last of it. The caller holds r.mu.
func (r *ownReader) batch(limit int) (texts [][]byte, upstream string) {
	for _, e := range r.backlog[:min(len(r.backlog), limit)] {
		texts, upstream = append(texts, e.text), e.upstream
	}
	return texts, upstream
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

// upstreamEvent is the upstream's id of the last event, of the upstream session that the session's record has in a version; empty when
// that has given none.
func (r *ownReader) upstreamEvent(version int64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if version != r.version {
		r.version, r.upstream = version, ""
	}
	return r.upstream
}

// look stops the reader when its session has ended or nobody has listened here for long, and stores what could not be stored before.
func (r *ownReader) look(ctx context.Context, now time.Time) {
	select {
	case <-r.lease.Ended():
		r.endListener()
		r.stop(errSessionEnded)
		return
	default:
	}
	r.move()
	r.mu.Lock()
	idle := r.listener == nil && now.Sub(r.unheard) >= ownReaderKeep
	behind := len(r.backlog) > 0
	r.mu.Unlock()
	if idle {
		r.stop(errStopReading)
	}
	if behind {
		_ = r.flush(ctx) // it is tried again
	}
}

// check takes in what the store says of the stream. A reader whose claim has moved must not keep the upstream from the next one.
func (r *ownReader) check(state cluster.StreamState, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(state.Err, cluster.ErrNotFound): // the lease tells
	case state.Err != nil:
		if r.listener == nil && now.Sub(r.checked) > blindReading {
			r.stop(errStopReading)
		}
	case state.Claim != r.claim || state.Reader != r.p.incarnation:
		r.stop(cluster.ErrStaleClaim)
	default:
		r.checked, r.known = now, state.Version
		if r.body != nil && r.known > r.call.current().Version {
			_ = r.body.Close() // which ends its reading
		}
		if r.listener != nil && r.listener.number < state.Listener {
			r.listener.end() // its client has opened another stream since
			r.detach()
		}
	}
}

// readOwn sees to it that this replica, which holds the claim, reads the session's own stream. When the upstream has none, its answer is
// returned, and the claim has been given up.
func (p *Proxy) readOwn(ctx context.Context, call *upstreamCall, lease *cluster.Lease, state cluster.StreamState) (*ownReader, *http.Response, error) {
	endTurn, err := p.own.turn(ctx, call.current().ID)
	if err != nil {
		return nil, nil, err
	}
	defer endTurn()
	if r := p.own.of(call.current().ID); r != nil && r.claim == state.Claim {
		return r, nil, nil
	}
	r := &ownReader{
		p: p, call: call.fork(), claim: state.Claim, last: state.Last, upstream: state.UpstreamEvent, version: call.current().Version, unheard: time.Now(),
		checked: time.Now(),
	}
	background, stop := context.WithCancelCause(p.background)
	r.stop = stop
	abandon := context.AfterFunc(ctx, func() { stop(context.Cause(ctx)) })
	res, err := r.open(background)
	if !abandon() && err == nil {
		discard(res)
		err = ctx.Err()
	}
	if err != nil {
		stop(nil)
		r.release()
		return nil, nil, err
	}
	if !isEventStream(res) {
		r.release()
		res.Body = &boundBody{res.Body, stop}
		return nil, res, nil
	}
	r.lease = lease.Watch()
	p.own.add(r)
	p.running.Go(func() {
		defer p.recovered("a session's own stream")
		r.run(background, res)
	})
	if p.isDraining() { // it may have begun since the claim was taken
		stop(errDraining)
	}
	return r, nil, nil
}

// boundBody is a body that can be read until it is closed; then its request ends.
type boundBody struct {
	io.ReadCloser
	stop context.CancelCauseFunc
}

func (b *boundBody) Close() error {
	err := b.ReadCloser.Close()
	b.stop(nil)
	return err
}

// open asks the upstream for the stream, from where it was left. An upstream that has not noticed yet that the reader before is gone is
// asked again for a while. One that answers 404 may have no such stream, or have lost the session.
func (r *ownReader) open(ctx context.Context) (*http.Response, error) {
	wait, isKnown := reopenPause, false
	for begun := time.Now(); ; {
		session := r.call.current()
		res, err := r.call.do(ctx, message{method: http.MethodGet, header: r.call.streamHeader(r.upstreamEvent(session.Version)), repeatable: true})
		switch {
		case err != nil:
			return nil, err
		case res.StatusCode == http.StatusNotFound && session.UpstreamSession != "" && !isKnown:
			discard(res)
			if isKnown, err = r.call.isKnown(ctx); err != nil {
				return nil, err
			}
			if isKnown {
				return noSuchStream(res), nil
			}
			isKnown = true // it is a new one
		case res.StatusCode == http.StatusConflict && time.Since(begun) < conflictWait:
			discard(res)
			if !pause(ctx, wait) {
				return nil, ctx.Err()
			}
			wait *= 2
		default:
			return res, nil
		}
	}
}

// noSuchStream is the answer of an upstream without own streams, as it should have been: a client takes 404 for the end of its session.
func noSuchStream(res *http.Response) *http.Response {
	res.StatusCode, res.Status = http.StatusMethodNotAllowed, ""
	res.Header = http.Header{"Allow": {"POST, DELETE"}, "Content-Type": {mcp.MediaTypeJSON}}
	body := mcp.EncodeError("", mcp.Error{Code: mcp.HTTPCode(http.StatusMethodNotAllowed), Message: "the server has no stream of its own"})
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return res
}

// isSessionOver reports whether an error means that the session has ended.
func isSessionOver(err error) bool {
	refused, ok := errors.AsType[refusal](err)
	return errors.Is(err, errSessionLost) || ok && refused.reason == mcp.ReasonSessionNotFound
}
