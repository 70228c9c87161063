package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// delete serves a DELETE: the client ends its session. Whether the upstream can be told changes nothing about that.
func (x *exchange) delete() {
	x.beginSpan()
	if !x.checkBodyless("DELETE") {
		return
	}
	lease, ok := x.lease(cluster.Use{})
	if !ok {
		return
	}
	lease.Release()
	ctx := x.detached() // a client that leaves now has said all it had to say
	// Another replica may have recovered the session since this one leased it: where it is now, the record says that was ended.
	session, err := x.p.sessions.Terminate(ctx, x.session, cluster.StatusClosed)
	if err != nil {
		x.refuseEnded(err)
		return
	}
	x.upstream.unpin(session.Endpoint)
	x.endUpstream(ctx, session.Endpoint, session.UpstreamSession, session.Revision)
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
func (x *exchange) endUpstream(ctx context.Context, endpoint, upstreamSession, revision string) {
	x.p.sendDelete(ctx, x.upstream, parting{
		request: x.request, session: x.sessionText(), endpoint: endpoint, upstreamSession: upstreamSession, revision: revision,
		credential: x.p.cfg.Auth.Credential(x.r.Header),
	})
}

// parting is a session that its upstream is asked to forget.
type parting struct {
	request         requestRef // the client's, if one is the cause
	session         string     // for the log
	endpoint        string     // where the session is
	upstreamSession string
	revision        string
	credential      http.Header // the client's, if there is one
}

// sendDelete asks an upstream to forget a session, which is good manners only: what it answers, and whether it does, matters
// to nobody. It takes at most Config.EndTimeout.
func (p *Proxy) sendDelete(ctx context.Context, upstream *upstream, s parting) {
	if s.upstreamSession == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.EndTimeout)
	defer cancel()
	log := s.request.in(p.log).With("upstream", upstream.Name, "session", s.session)
	e, isOurs := upstream.pinned(ctx, s.endpoint)
	if !isOurs && s.endpoint == "" { // the record says nothing
		chosen, err := upstream.choose(ctx)
		e, isOurs = chosen, err == nil
	}
	if !isOurs {
		e = upstream.former(s.endpoint)
	}
	if e == nil {
		log.Debug("a session has ended whose endpoint was never the upstream's")
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, e.target("").String(), http.NoBody)
	if err != nil {
		log.Error("making a DELETE for the upstream")
		return
	}
	req.Host = e.host
	req.Header.Set(mcp.HeaderSessionID, s.upstreamSession)
	if mcp.HasSessions(s.revision) { // after a failed initialize it is only what the client wished for
		req.Header.Set(mcp.HeaderProtocolVersion, s.revision)
	}
	if s.request.id != "" {
		req.Header.Set(headerRequestID, s.request.id)
	}
	if isOurs { // another place is told no more than what it knows
		maps.Copy(req.Header, s.credential)
		p.cfg.Auth.Outbound(req.Header)
	}
	// Not http.Client: its errors hold the URL, and a redirect is not to be followed.
	res, err := e.RoundTrip(req)
	if err != nil {
		log.Debug("upstream did not answer DELETE", "error", err)
		return
	}
	defer func() { _ = res.Body.Close() }() // only read
	_, _ = io.CopyN(io.Discard, res.Body, maxIgnoredBody)
	log.Debug("upstream answered DELETE", "status", res.StatusCode)
}
