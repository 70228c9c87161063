package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// delete serves a DELETE: the client ends its session. Whether the upstream can be told changes nothing about that.
func (x *exchange) delete() {
	if !x.checkBodyless("DELETE") {
		return
	}
	lease, ok := x.lease(cluster.Use{})
	if !ok {
		return
	}
	revision := lease.Session().Revision
	lease.Release()
	ctx := x.detached() // a client that leaves now has said all it had to say
	if _, err := x.p.sessions.Terminate(ctx, x.session, cluster.StatusClosed); err != nil {
		x.refuseEnded(err)
		return
	}
	x.endUpstream(ctx, x.upstreamSession, revision)
	x.w.WriteHeader(http.StatusNoContent)
}

// refuseEnded answers a DELETE that could not end its session: somebody else did, or nobody can know.
func (x *exchange) refuseEnded(err error) {
	if errors.Is(err, cluster.ErrIllegalTransition) {
		err = cluster.ErrNotFound
	}
	x.refuseSession(err)
}

// endUpstream asks the upstream to forget a session, on behalf of its client.
func (x *exchange) endUpstream(ctx context.Context, upstreamSession, revision string) {
	x.p.sendDelete(ctx, x.upstream, x.sessionText(), upstreamSession, revision, x.r.Header.Values("Authorization"))
}

// sendDelete asks an upstream to forget a session, which is good manners only: what it answers, and whether it does, matters
// to nobody. It takes at most Config.EndTimeout.
func (p *Proxy) sendDelete(ctx context.Context, upstream *Upstream, session, upstreamSession, revision string, authorization []string) {
	if upstreamSession == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.EndTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, upstream.URL.String(), http.NoBody)
	if err != nil {
		p.log.Error("making a DELETE for the upstream", "upstream", upstream.Name, "session", session)
		return
	}
	req.Header.Set(mcp.HeaderSessionID, upstreamSession)
	if mcp.HasSessions(revision) { // after a failed initialize it is only what the client wished for
		req.Header.Set(mcp.HeaderProtocolVersion, revision)
	}
	if len(authorization) > 0 {
		req.Header["Authorization"] = authorization
	}
	// Not http.Client: its errors hold the URL, and a redirect is not to be followed.
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		p.log.Debug("upstream did not answer DELETE", "upstream", upstream.Name, "session", session, "error", err)
		return
	}
	defer func() { _ = res.Body.Close() }() // only read
	_, _ = io.CopyN(io.Discard, res.Body, maxIgnoredBody)
	p.log.Debug("upstream answered DELETE", "upstream", upstream.Name, "session", session, "status", res.StatusCode)
}
