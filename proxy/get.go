package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

const (
	// maxIgnoredBody is how much of a body is read, and thrown away, where none belongs.
	maxIgnoredBody = 64 << 10
	// aheadWait is how long a client that has more than the store is waited for, looking every aheadPause: the reader stores what it could
	// not every tendInterval, or has died with it, which is known after five seconds.
	aheadWait  = 7 * time.Second
	aheadPause = 100 * time.Millisecond
)

// get serves a GET: the client listens to what the server has to say of its own, or resumes any stream of its session by
// Last-Event-ID. At which replica it does that makes no difference.
func (x *exchange) get() {
	x.beginSpan()
	if !x.checkBodyless("GET") {
		return
	}
	if _, eventStream := mcp.Accepts(x.r.Header); !eventStream {
		x.refuse(refusal{status: http.StatusNotAcceptable, message: "Accept must list text/event-stream"})
		return
	}
	if !x.admitStream() {
		return
	}
	lease, ok := x.lease(cluster.Use{Stream: true})
	if !ok {
		return
	}
	defer func() {
		if !x.streamed {
			lease.Release()
		}
	}()
	x.forward(x.r.Context(), func(req *http.Request) (*http.Response, error) { return x.openStream(req, lease) }, func(res *http.Response) error {
		res.Header.Del(mcp.HeaderSessionID) // it is the upstream's own
		return nil
	})
}

// Who listens waits anyway, so while the store is away a GET waits for it for storePatience, a moment of storePause between two looks,
// and is refused then. The official Go client gives its session up when a stream cannot be opened again.
const (
	storePatience = 5 * time.Second
	storePause    = 50 * time.Millisecond
)

// untilStore calls do again for as long as it fails for want of the store, and returns its error.
func (x *exchange) untilStore(do func() error) error {
	for begun := time.Now(); ; {
		err := do()
		if !errors.Is(err, cluster.ErrStoreUnavailable) || time.Since(begun) > storePatience || x.p.isDraining() || !pause(x.r.Context(), storePause) {
			return err
		}
	}
}

// openStream opens or resumes the stream that a GET asks for.
func (x *exchange) openStream(req *http.Request, lease *cluster.Lease) (*http.Response, error) {
	last := strings.Join(req.Header.Values(mcp.HeaderLastEventID), ", ")
	req.Header.Del(mcp.HeaderLastEventID)
	x.call = x.newCall(req)
	if last == "" {
		return x.listen(req.Context(), lease, nil)
	}
	id, ok := parseEventID(last)
	switch {
	case !ok:
		x.p.cfg.Observer.ResumptionDone(ResumptionEventsGone)
		return nil, errEventsGone
	case id.last:
		x.p.cfg.Observer.ResumptionDone(ResumptionComplete)
		return noMore(), nil
	case id.stream == cluster.OwnStream:
		res, err := x.listen(req.Context(), lease, &id)
		x.p.cfg.Observer.ResumptionDone(resumptionOf(res, err))
		return res, err
	default:
		if err := x.p.sessions.OpenStream(req.Context(), lease, cluster.StreamResumed); err != nil {
			x.p.cfg.Observer.ResumptionDone(ResumptionUnavailable)
			return nil, refusalOf(err)
		}
		l := newListener(x.call, lease, id)
		l.onLeave = func() {
			x.p.follower.remove(l)
			x.p.cfg.Observer.ResumptionDone(l.resumption())
		}
		l.prime(x.record.Revision, x.p.retry())
		x.p.follower.readAll(req.Context(), []*listener{l})
		return x.streamTo(l), nil
	}
}

// resumptionOf is the outcome of resuming a session's own stream.
func resumptionOf(res *http.Response, err error) Resumption {
	switch refused, _ := errors.AsType[refusal](err); {
	case err == nil && res.StatusCode == http.StatusOK:
		return ResumptionResumed
	case refused.reason == mcp.ReasonEventsGone:
		return ResumptionEventsGone
	default:
		return ResumptionUnavailable
	}
}

// listen makes the client the one that the session's own stream goes to, and this replica its reader unless another one is. after is
// the last event that the client has; nil: it wants what comes from now on.
func (x *exchange) listen(ctx context.Context, lease *cluster.Lease, after *eventID) (res *http.Response, err error) {
	if err := x.p.sessions.OpenStream(ctx, lease, cluster.StreamListening); err != nil {
		return nil, refusalOf(err)
	}
	defer func() {
		if err != nil {
			x.p.own.doubt(x.session)
		}
	}()
	var state cluster.StreamState
	begin := int64(-1) // from now on
	if after != nil {
		begin = after.position
	}
	err = x.untilStore(func() (err error) {
		state, err = x.claimListening(ctx, begin)
		return err
	})
	if err != nil {
		return nil, refusalOf(err)
	}
	l := newListener(x.call, lease, eventID{stream: cluster.OwnStream, claim: state.Claim, position: state.Last})
	l.number = state.Listener
	l.onEnded = func() {
		if r := x.p.own.of(l.session); r != nil {
			r.stop(errSessionEnded)
		}
	}
	l.onLeave = func() {
		x.p.follower.remove(l)
		if r := x.p.own.of(l.session); r != nil {
			r.left(l)
		}
	}
	if after == nil {
		l.id.listener = state.Listener
		l.prime(x.record.Revision, x.p.retry())
		l.id.listener = 0
	} else if state, err = x.catchUp(ctx, l, state, *after); err != nil {
		return nil, err
	}
	if state.Reader == x.p.incarnation {
		r, refused, err := x.p.readOwn(ctx, x.call, lease, state)
		if err != nil {
			return nil, streamRefusal(err)
		}
		switch {
		case r != nil:
			r.attach(l)
		case refused.StatusCode == http.StatusConflict:
			discard(refused) // a replica that the store has lost sight of may read it yet; the follower tries again
		default:
			return refused, nil
		}
	}
	return x.streamTo(l), nil
}

// claimListening makes the client the listener to what follows a position, and this replica the reader where nobody reads.
func (x *exchange) claimListening(ctx context.Context, after int64) (cluster.StreamState, error) {
	p := x.p
	claim := cluster.StreamClaim{ID: x.session, Owner: p.incarnation, Listen: true, After: after, Read: !p.isDraining()}
	state, err := p.sessions.ClaimStream(ctx, claim)
	if err != nil || state.Reader == p.incarnation || p.isDraining() || !p.follower.isUnread(ctx, state.Reader) {
		return state, err
	}
	taken, err := p.sessions.ClaimStream(ctx, cluster.StreamClaim{ID: x.session, Owner: p.incarnation, Read: true, From: state.Claim})
	if err != nil {
		return state, nil //nolint:nilerr // the follower tries again
	}
	return taken, nil
}

// catchUp gives a listener that resumes what it has missed, as far as one look goes; the follower goes on from there. It returns the state
// that it has come to.
func (x *exchange) catchUp(ctx context.Context, l *listener, state cluster.StreamState, after eventID) (cluster.StreamState, error) {
	told := after
	told.listener = state.Listener
	l.tell(x.record.Revision, told, x.p.retry())
	var page cluster.EventPage
	for begun := time.Now(); ; {
		l.number, l.position = state.Listener, after.position
		l.claimed(state.Claim, 0)
		if after.claim < state.Claim && after.position > state.Since {
			// The reader before had sent it more than it could store.
			if x.comesAgain(state, after) {
				return state, nil
			}
			l.position = state.Since // of what the store knows nothing was missed
		}
		err := x.untilStore(func() error {
			page = x.p.sessions.Events(ctx, []cluster.EventQuery{{ID: l.session, Stream: cluster.OwnStream, After: l.position, Limit: followPage}})[0]
			return page.Err
		})
		isAhead := errors.Is(err, cluster.ErrEventsGone) && after.claim == state.Claim && after.position > state.Last
		if !isAhead || time.Since(begun) > aheadWait || !pause(ctx, aheadPause) {
			break
		}
		if state, err = x.claimListening(ctx, after.position); err != nil {
			return state, refusalOf(err)
		}
	}
	switch {
	case errors.Is(page.Err, cluster.ErrEventsGone):
		return state, errEventsGone
	case page.Err != nil:
		return state, refusalOf(page.Err)
	}
	l.offer(l.position+1, page.Events)
	return state, nil
}

// comesAgain reports whether what a client has and the store has not will be read from the upstream once more, at the same positions.
func (x *exchange) comesAgain(state cluster.StreamState, after eventID) bool {
	return state.UpstreamEvent != "" && after.version != 0 && after.version == x.record.Version
}

// noMore is the answer to a client that has all of a stream. Clients of server-sent events do not ask again after it, while after a
// stream that ends they do: some do so too when the response was an error.
func noMore() *http.Response {
	return &http.Response{
		StatusCode: http.StatusNoContent, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Cache-Control": {"no-store"}}, Body: http.NoBody,
	}
}

// streamRefusal is the answer to a client whose stream the upstream cannot be asked for.
func streamRefusal(err error) error {
	if refused, ok := errors.AsType[refusal](err); ok {
		return refused
	}
	if errors.Is(err, errSessionLost) {
		return err
	}
	return upstreamUnavailable("the upstream could not be asked for the stream; retry")
}

// streamTo answers with a listener's stream.
func (x *exchange) streamTo(l *listener) *http.Response {
	x.streamed = true
	x.w.together = mcp.Primes(x.record.Revision)
	open := &x.p.streams.resumed
	if l.isOwn() {
		open = &x.p.streams.own
	}
	x.p.follower.add(l)
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1,
		Header: http.Header{"Content-Type": {mcp.MediaTypeEventStream}, "Cache-Control": {"no-cache, no-transform"}, "X-Accel-Buffering": {"no"}},
		Body: &streamBody{
			source: l, keepAlive: x.p.keepAlive(), gone: x.r.Context().Done(), ended: l.lease.Ended(), drained: x.p.draining,
			onEnded: l.sessionEnded, open: count(open),
		},
	}
}

// checkBodyless checks what GET and DELETE have in common. When it returns false, the request is answered.
func (x *exchange) checkBodyless(method string) bool {
	switch x.eraOfHeader() {
	case mcp.EraStateless:
		x.refuse(methodNotAllowed("POST", "protocol revision "+mcp.Revision20260728+" and later have no "+method))
		return false
	case mcp.EraUnknown:
		x.refuse(unsupportedVersion())
		return false
	}
	return x.ignoreBody()
}

// ignoreBody reads a body that has no meaning. A little of one is harmless, and unread it would keep net/http from noticing
// that the client left.
func (x *exchange) ignoreBody() bool {
	if x.r.ContentLength == 0 {
		return true
	}
	ok := x.readBodyUpTo(min(maxIgnoredBody, x.p.cfg.MaxBody))
	x.body = nil
	return ok
}
