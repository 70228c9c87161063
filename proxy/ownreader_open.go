package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// conflictWait is how long an upstream that refuses a second reader is asked again at once: it may not have noticed yet that the reader
// before has died.
const conflictWait = 3 * time.Second

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
		p: p, call: call.fork(), claim: state.Claim, began: state, last: state.Last, unheard: time.Now(), checked: time.Now(), known: state.Version,
	}
	if err := r.refresh(ctx); err != nil { // the upstream session before would be recovered to this one, and read from its beginning
		r.release()
		return nil, nil, refusalOf(err)
	}
	if session := r.call.current(); session.Version == state.Version {
		r.from = originOf(session, state.UpstreamEvent)
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

// open asks the upstream for the stream, from where it was left. An upstream that has not noticed yet that the reader before is gone is
// asked again for a while. One that answers 404 may have no such stream, or have lost the session.
func (r *ownReader) open(ctx context.Context) (*http.Response, error) {
	wait, isKnown := reopenPause, false
	for begun := time.Now(); ; {
		session := r.call.current()
		res, err := r.call.do(ctx, message{method: http.MethodGet, header: r.call.streamHeader(r.upstreamEvent(session)), repeatable: true})
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

// upstreamEvent is the upstream's id of the last event of the upstream session that a session has; empty when that has given none.
func (r *ownReader) upstreamEvent(session cluster.Session) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if session.Version != r.from.version {
		r.from = originOf(session, "")
	}
	return r.from.event
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
