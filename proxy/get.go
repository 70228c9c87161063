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

// maxIgnoredBody is how much of a body is read, and thrown away, where none belongs.
const maxIgnoredBody = 64 << 10

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
	x.forward(x.r.Context(), func(ctx context.Context, req *http.Request) (*http.Response, error) {
		return x.openStream(ctx, req, lease)
	}, func(res *http.Response) error {
		res.Header.Del(mcp.HeaderSessionID) // it is the upstream's own
		return nil
	})
}

// Who listens waits anyway, so while the store is away a GET waits for it for storePatience, a moment of storePause between two looks,
// and is refused then. The official Go client gives its session up when a stream cannot be opened again, so that is long enough for
// most failovers; and less than balancers wait for an answer, which is the default stream_keep_alive (15 s) at least.
const (
	storePatience = 12 * time.Second
	storePause    = 50 * time.Millisecond
)

// untilStore calls do again for as long as it fails for want of the store and the request may wait, and returns its error.
func (x *exchange) untilStore(do func() error) error {
	for {
		err := do()
		if !errors.Is(err, cluster.ErrStoreUnavailable) || time.Since(x.started) > storePatience || x.p.isDraining() || !pause(x.r.Context(), storePause) {
			return err
		}
	}
}

// openStream opens or resumes the stream that a GET asks for.
func (x *exchange) openStream(ctx context.Context, req *http.Request, lease *cluster.Lease) (*http.Response, error) {
	last := strings.Join(req.Header.Values(mcp.HeaderLastEventID), ", ")
	req.Header.Del(mcp.HeaderLastEventID)
	x.call = x.newCall(req)
	if last == "" {
		return x.listen(ctx, lease, nil)
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
		res, err := x.listen(ctx, lease, &id)
		x.p.cfg.Observer.ResumptionDone(resumptionOf(res, err))
		return res, err
	default:
		if err := x.p.sessions.OpenStream(ctx, lease, cluster.StreamResumed); err != nil {
			x.p.cfg.Observer.ResumptionDone(ResumptionUnavailable)
			return nil, refusalOf(err)
		}
		l := newListener(x.call, lease, id)
		l.onLeave = func() {
			x.p.follower.remove(l)
			x.p.cfg.Observer.ResumptionDone(l.resumption())
		}
		l.prime(x.record.Revision, x.p.retry())
		x.p.follower.readAll(ctx, []*listener{l})
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
			onEnded: l.leaseEnded, open: count(open),
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
