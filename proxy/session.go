package proxy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"

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
		use.PendingKey = "b:" + rand.Text() // it has no id of its own
	}
	lease, ok := x.lease(use)
	if !ok {
		return
	}
	defer lease.Release()
	if revision := lease.Session().Revision; x.msg.Kind == mcp.KindBatch && !mcp.AllowsBatch(revision) {
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
	use.Upstream = x.upstream.Name
	lease, err := x.p.sessions.Lease(x.r.Context(), token, use)
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
	x.token, x.session, x.upstreamSession = token, token.ID, lease.Session().UpstreamSession
	return lease, true
}

// forwardLeased forwards the request until it is answered or its session ends.
func (x *exchange) forwardLeased(lease *cluster.Lease) {
	if !x.aim(lease.Session().Endpoint) {
		return
	}
	ctx, cancel := context.WithCancelCause(x.r.Context())
	// The watcher ends with this function, which cancels its context and waits for it.
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-lease.Ended():
			cancel(errSessionEnded)
		case <-ctx.Done():
		}
	})
	defer watcher.Wait()
	defer cancel(nil)
	x.forward(ctx, func(res *http.Response) error { return x.answeredInSession(ctx, res, lease) })
}

// answeredInSession takes in the header of the upstream's answer.
func (x *exchange) answeredInSession(ctx context.Context, res *http.Response, lease *cluster.Lease) error {
	// Only a POST tells for sure: some servers answer 404 to every GET, meaning that they have no such stream.
	if res.StatusCode == http.StatusNotFound && x.upstreamSession != "" && x.r.Method == http.MethodPost {
		x.lostByUpstream()
		return errSessionNotFound
	}
	// Some servers name the session in every answer, and clients check it.
	id := res.Header.Get(mcp.HeaderSessionID)
	res.Header.Del(mcp.HeaderSessionID)
	if id != "" && id == x.upstreamSession {
		res.Header.Set(mcp.HeaderSessionID, x.token.Reveal())
	}
	res.Body = &answerBody{
		ReadCloser: res.Body,
		res:        res,
		touch:      lease.Touch,
		ended:      func() bool { return errors.Is(context.Cause(ctx), errSessionEnded) },
	}
	return nil
}

// lostByUpstream ends a session that its upstream no longer knows. The client must start anew either way, so it is told
// even when the store cannot be.
func (x *exchange) lostByUpstream() {
	_, err := x.p.sessions.Terminate(x.detached(), x.session, cluster.StatusFailed)
	if err != nil && !errors.Is(err, cluster.ErrIllegalTransition) && !errors.Is(err, cluster.ErrNotFound) {
		x.p.log.Warn("session lost by its upstream could not be ended", "session", x.sessionText(), "error", err)
		return
	}
	x.p.log.Warn("upstream lost a session", "upstream", x.upstream.Name, "session", x.sessionText())
}
