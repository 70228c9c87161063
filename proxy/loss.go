package proxy

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// A server says by 404 that it does not know a session. Some say so, too, of what a request is about, and have run it; or of a GET, for want
// of a stream. A ping tells those from it: a server that knows the session answers it, with whatever status but 404.

const (
	// suspectTries is how often the ping is sent while nothing comes of it, suspectTimeout how long all of that may take.
	suspectTries   = 3
	suspectTimeout = 5 * time.Second
)

// ping is the message that asks an upstream whether it knows the session.
func (c *upstreamCall) ping() message {
	h := c.header.Clone()
	h.Del(mcp.HeaderLastEventID)
	h.Set("Content-Type", mcp.MediaTypeJSON)
	h.Set("Accept", mcp.MediaTypeJSON+", "+mcp.MediaTypeEventStream)
	if revision := c.current().Revision; revision != "" {
		h.Set(mcp.HeaderProtocolVersion, revision)
	}
	return message{
		method: http.MethodPost, body: []byte(`{"jsonrpc":"2.0","id":"shadowcat:known","method":"ping"}`), header: h, repeatable: true, pings: true,
	}
}

// isKnown asks the upstream whether it still knows the session; when it does not, the session is recovered. It reports whether the
// mapping was right.
func (c *upstreamCall) isKnown(ctx context.Context) (bool, error) {
	before := c.current().Version
	res, err := c.do(ctx, c.ping())
	if err != nil {
		return false, err
	}
	discard(res)
	return c.current().Version == before, nil
}

// suspect decides about an upstream's 404 to m: it is the answer, unless the upstream has lost the session. Where that cannot be found out,
// nobody knows whether m has come to something.
func (c *upstreamCall) suspect(ctx context.Context, session cluster.Session, m message, res *http.Response) (*http.Response, *fault) {
	isLost, err := m.pings, error(nil)
	if !m.pings {
		isLost, err = c.p.isLost(ctx, c, session)
	}
	if err == nil && !isLost {
		return res, nil
	}
	discard(res)
	if err != nil {
		return nil, &fault{sent: true, err: fmt.Errorf("the upstream answered with status 404, and whether it knows the session could not be found out: %w", err)}
	}
	return nil, &fault{lost: true, err: errSessionLost}
}

// isLost asks the upstream, once for all requests that suspect so at the same time, whether it has lost a session. The error is that it
// cannot be found out now, or ctx's.
func (p *Proxy) isLost(ctx context.Context, c *upstreamCall, session cluster.Session) (bool, error) {
	return together(ctx, p, &p.suspecting, session, func() (bool, error) {
		bounded, cancel := context.WithTimeout(p.cut, suspectTimeout)
		defer cancel()
		bounded, span := p.part(bounded, ctx, "ask about session")
		defer span.End()
		for try, wait := 1, firstRetry; ; try, wait = try+1, 2*wait {
			status, err := c.pingOnce(bounded, session)
			switch {
			case err == nil && !isPassing(status):
				return status == http.StatusNotFound, nil
			case err == nil:
				err = fmt.Errorf("it answered a ping with status %d", status)
			}
			if try == suspectTries || !pause(bounded, wait) {
				return false, err
			}
		}
	})
}

// pingOnce returns the status of the answer to a ping.
func (c *upstreamCall) pingOnce(ctx context.Context, session cluster.Session) (int, error) {
	e, known := c.upstream.pinned(ctx, session.Endpoint)
	if !known {
		return 0, errUnreachable
	}
	res, err := e.RoundTrip(c.request(ctx, e, session, c.ping()))
	if err != nil {
		return 0, err
	}
	discard(res)
	return res.StatusCode, nil
}
