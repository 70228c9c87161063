package proxy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// postInSession serves a POST of a session that exists.
func (x *exchange) postInSession() {
	use := cluster.Use{Requests: x.msg.BatchLen} // one request is counted where this is 0
	switch x.msg.Kind {
	case mcp.KindRequest:
		use.PendingKey = pendingKey(x.msg.ID)
	case mcp.KindBatch:
		if x.msg.Requests > 0 {
			use.PendingKey, use.Pending = "b:"+rand.Text(), x.msg.Requests // it has no id of its own
		}
	}
	if !x.admit() {
		return
	}
	lease, ok := x.lease(use)
	if !ok {
		return
	}
	x.recordRequest()
	if revision := lease.Session().Revision; x.msg.Kind == mcp.KindBatch && !mcp.AllowsBatch(revision) {
		lease.Release()
		x.refuse(refusal{
			status:  http.StatusBadRequest,
			code:    mcp.CodeInvalidRequest,
			message: "the session's protocol revision " + revision + " has no batches; send each message on its own",
		})
		return
	}
	x.forwardLeased(lease)
}

// pendingKey names a client's request in flight, in at most 64 bytes. Ids that are longer are replaced by a digest.
func pendingKey(id mcp.ID) string {
	const (
		fromClient = "c:"
		digested   = "c#" // apart from ids that look like a digest
		longest    = 64
	)
	if len(fromClient)+len(id) <= longest {
		return fromClient + string(id)
	}
	sum := sha256.Sum256([]byte(id))
	return digested + hex.EncodeToString(sum[:24])
}

// lease gets the right to serve the request's session. When it returns false, the request is answered.
func (x *exchange) lease(use cluster.Use) (*cluster.Lease, bool) {
	ids := x.r.Header.Values(mcp.HeaderSessionID)
	if len(ids) == 0 || len(ids) == 1 && ids[0] == "" {
		x.refuse(errSessionRequired)
		return nil, false
	}
	token, err := cluster.ParseToken(ids[0])
	if err != nil || len(ids) > 1 {
		x.refuse(errSessionNotFound)
		return nil, false
	}
	use.Upstream, use.Principal = x.upstream.Name, x.identity.Principal
	var lease *cluster.Lease
	acquire := func() (err error) {
		lease, err = x.p.sessions.Lease(x.r.Context(), token, use)
		return err
	}
	if use.Stream {
		err = x.untilStore(acquire)
	} else {
		err = acquire()
	}
	x.leased = cluster.OutcomeOf(lease, err)
	if err != nil {
		f := refusalOf(err)
		if f.reason == mcp.ReasonTooManyPending {
			x.session = token.ID // as below
		}
		if f.reason == mcp.ReasonRateLimited {
			x.session = token.ID // it exists, and operators want to know which
			if use.Requests > 1 {
				f.message = "the session sends requests too fast; every message of a batch counts, so send smaller ones"
			}
		}
		x.refuseFor(err, f)
		return nil, false
	}
	x.token, x.session, x.record = token, token.ID, lease.Session()
	return lease, true
}

// forwardLeased forwards the request until it is answered or its session ends. That its client leaves ends nothing: in this era it is no
// cancellation.
func (x *exchange) forwardLeased(lease *cluster.Lease) {
	ctx, cancel := context.WithCancelCause(x.detached())
	unlink := context.AfterFunc(x.p.cut, func() { cancel(errDraining) })
	defer unlink()
	defer x.hurry(cancel)()
	// Until this function ends, or the answer turns out to be a stream, which watches for itself.
	unwatch := lease.AfterEnd(func() { cancel(errSessionEnded) })
	defer func() {
		unwatch()
		if !x.streamed {
			cancel(nil)
			lease.Release()
		}
	}()
	x.forward(ctx, x.sendInSession, func(res *http.Response) error {
		if isEventStream(res) {
			unwatch()
			x.answeredByStream(ctx, cancel, res, lease)
		}
		return x.answeredInSession(ctx, res, lease)
	})
}

// sendInSession sends the request to the upstream of its session.
func (x *exchange) sendInSession(ctx context.Context, req *http.Request) (*http.Response, error) {
	answers, onlyAnswers := x.answersQuestions()
	if answers {
		if isNeeded, err := x.meetQuestions(); err != nil || !isNeeded {
			return taken(), err
		}
	}
	x.call = x.newCall(req)
	x.call.begun, x.call.wishes = x.started, x.wishes()
	res, err := x.call.do(ctx, message{
		method: req.Method, body: x.body, repeatable: x.msg.Kind == mcp.KindRequest && mcp.ReadOnly(x.msg.Method),
		bound: onlyAnswers, answers: answers, pings: x.msg.Kind == mcp.KindRequest && x.msg.Method == mcp.MethodPing,
	})
	if onlyAnswers && errors.Is(err, errSessionLost) && !x.p.cfg.NoRecover {
		// Who asked is gone, and a new upstream session has not asked. The next request recovers the session.
		return taken(), nil
	}
	if failed, ok := errors.AsType[*unanswered](err); ok {
		x.sent.Store(failed.sent)
	}
	return res, err
}

// isEventStream reports whether an answer is a stream of events that can be read.
func isEventStream(res *http.Response) bool {
	encoding := res.Header.Get("Content-Encoding")
	return res.StatusCode == http.StatusOK && (encoding == "" || encoding == "identity") &&
		mcp.IsMediaType(res.Header.Get("Content-Type"), mcp.MediaTypeEventStream)
}

// answeredByStream makes the stream that the upstream answers with one that outlives the client's connection.
func (x *exchange) answeredByStream(ctx context.Context, cancel context.CancelCauseFunc, res *http.Response, lease *cluster.Lease) {
	x.streamed = true
	// This request's end is not the stream's.
	unlink := context.AfterFunc(x.p.cut, func() { cancel(errDraining) })
	unwatch := lease.AfterEnd(func() { cancel(errSessionEnded) })
	s := newAnswerStream(x.call, lease, x.msg, func(cause error) { unlink(); unwatch(); cancel(cause) })
	if x.msg.Kind == mcp.KindBatch {
		s.unanswered = requestsIn(x.body)
	}
	x.w.together = s.primes
	upstream := res.Body
	res.Body = &streamBody{
		source: s, keepAlive: x.p.keepAlive(), settle: settleTime, gone: x.r.Context().Done(), open: count(&x.p.streams.answers),
	}
	res.ContentLength = -1
	res.Header.Del("Content-Length")
	x.p.load.stream(&x.place)
	x.leaveStream = x.p.load.shareStream(&x.place)
	x.p.answering.start(ctx, s, upstream, x.leaveStream)
}

// answeredInSession takes in the header of the upstream's answer.
func (x *exchange) answeredInSession(ctx context.Context, res *http.Response, lease *cluster.Lease) error {
	// Some servers name the session in every answer, and clients check it.
	id := res.Header.Get(mcp.HeaderSessionID)
	res.Header.Del(mcp.HeaderSessionID)
	if id != "" && id == x.call.current().UpstreamSession {
		res.Header.Set(mcp.HeaderSessionID, x.token.Reveal())
	}
	if x.streamed {
		return nil
	}
	if res.StatusCode >= 200 && res.StatusCode <= 299 {
		x.noteGranted(ctx, res)
	}
	res.Body = &answerBody{
		ReadCloser: res.Body,
		res:        res,
		touch:      lease.Touch,
		ended:      func() bool { return errors.Is(context.Cause(ctx), errSessionEnded) },
	}
	res.Body = x.recordAnswer(res, res.Body)
	return nil
}
