package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

const (
	// tryTime is for how long an endpoint is tried again that cannot be reached. The last try may take as long as connecting does.
	tryTime = 3 * time.Second
	// maxRecoveries bounds how often one request's session is recovered.
	maxRecoveries = 2
	// firstRetry is the pause before the second try; it doubles with each.
	firstRetry = 100 * time.Millisecond
)

// Why an upstream's session could not be used.
var (
	errNoSuchStream = errors.New("the upstream has no such stream")
	errUnreachable  = errors.New("no endpoint of the upstream could be reached")
)

// upstreamCall asks the upstream of one session, on behalf of one client's request and of what follows from it: it finds the
// endpoint that the session is pinned to, tries again where that is safe, and recovers the session where the upstream has lost it.
type upstreamCall struct {
	p        *Proxy
	upstream *upstream
	header   http.Header // what the upstream is to see of the client's request; no session id
	query    string
	origin   requestRef
	begun    time.Time // when the client's request came in; zero of one that is answered by nothing
	// clientSecrets are the request's (see there), and what the upstream is shown instead. No event that comes of it is recorded with them.
	clientSecrets []string
	// wishes are what the request asks for that lasts, until that is answered. Who reads the answer has them.
	wishes []wish

	mu      sync.Mutex
	session cluster.Session // with the mapping that was used last
}

// message is what is sent, once or several times.
type message struct {
	method     string
	body       []byte
	header     http.Header // instead of the call's; may be nil
	repeatable bool        // it does no harm twice
	bound      bool        // it has no meaning in another upstream session
	answers    bool        // it holds answers to questions of the upstream
	pings      bool        // it does nothing but ask whether the upstream knows the session
}

// log is for what concerns the session.
func (c *upstreamCall) log() *slog.Logger {
	return c.origin.in(c.p.log).With("session", c.current().ID, "upstream", c.upstream.Name)
}

func (c *upstreamCall) current() cluster.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

func (c *upstreamCall) use(s cluster.Session) {
	c.mu.Lock()
	c.session = s
	c.mu.Unlock()
}

// newCall is the call that sends the client's request, in the form of req.
func (x *exchange) newCall(req *http.Request) *upstreamCall {
	return &upstreamCall{
		p: x.p, upstream: x.upstream, header: req.Header, query: req.URL.RawQuery, origin: x.request,
		clientSecrets: x.p.cfg.Recorder.AppendSecrets(x.clientSecrets(), req.Header), session: x.record,
	}
}

// fork returns a call of its own for the same session, which goes its own ways from now on.
func (c *upstreamCall) fork() *upstreamCall {
	return &upstreamCall{
		p: c.p, upstream: c.upstream, header: c.header, query: c.query, origin: c.origin, begun: c.begun, clientSecrets: c.clientSecrets,
		session: c.current(),
	}
}

// unanswered is the error of a request that has no answer.
type unanswered struct {
	sent bool // some of it may have reached the upstream
	err  error
}

func (u *unanswered) Error() string { return u.err.Error() }
func (u *unanswered) Unwrap() error { return u.err }

// do sends m to the session's endpoint and returns the answer's header with its body to come. It sends again when nothing had been
// sent, when the upstream has lost the session and so did nothing, and when m is repeatable. The error is a refusal, errSessionLost, or an
// *unanswered, which holds ctx's error if that ended.
func (c *upstreamCall) do(ctx context.Context, m message) (*http.Response, error) {
	var sent bool // by any try that may have come to something
	begun, wait, recoveries := time.Now(), firstRetry, 0
	for isFirst := true; ; isFirst = false {
		session := c.current()
		res, fault := c.try(ctx, session, m)
		if fault == nil {
			return res, nil
		}
		sent = sent || fault.sent
		if ctx.Err() != nil {
			return nil, &unanswered{sent: sent, err: ctx.Err()}
		}
		if fault.sent && !m.repeatable {
			return nil, fault.error(sent)
		}
		if (c.p.cfg.NoRecover || m.bound) && (fault.lost || fault.gone) {
			return nil, fault.error(sent)
		}
		if fault.lost || fault.gone || (!isFirst || fault.ails) && c.mayMove(session, m) {
			if recoveries++; recoveries > maxRecoveries {
				return nil, fault.error(sent)
			}
			recovered, err := c.p.recoverSession(ctx, c, session, fault)
			if ctx.Err() != nil {
				return nil, &unanswered{sent: sent, err: ctx.Err()}
			}
			if err != nil {
				return nil, err
			}
			c.use(recovered)
			begun, wait = time.Now(), firstRetry
			if m.header != nil {
				m.header.Del(mcp.HeaderLastEventID) // the new upstream session has no such event
			}
			continue
		}
		left := tryTime - time.Since(begun)
		if !isFirst && left <= 0 {
			return nil, fault.error(sent)
		}
		if !pause(ctx, max(min(wait, left), firstRetry)) {
			return nil, &unanswered{sent: sent, err: ctx.Err()}
		}
		wait *= 2
	}
}

// mayMove reports whether the session may be made anew at another endpoint although its own may still have it.
func (c *upstreamCall) mayMove(session cluster.Session, m message) bool {
	return !m.bound && !c.p.cfg.NoRecover && c.upstream.hasOthers(session.Endpoint)
}

// fault says why a try came to nothing.
type fault struct {
	err  error
	sent bool // some of the request may have reached the upstream, and come to something
	lost bool // the upstream does not know the session any more
	gone bool // the session's endpoint is not one of the upstream's any more
	ails bool // the session's endpoint is known to ail
}

// error is what the request ends with. sent: in this try or one before.
func (f *fault) error(sent bool) error {
	if f.lost || f.gone {
		return errSessionLost
	}
	return &unanswered{sent: sent, err: f.err}
}

// errSessionLost means that the upstream has lost the session for good.
var errSessionLost = errors.New("the upstream has lost the session")

// try sends m once.
func (c *upstreamCall) try(ctx context.Context, session cluster.Session, m message) (*http.Response, *fault) {
	e, known := c.upstream.pinned(ctx, session.Endpoint)
	if !known {
		return nil, &fault{gone: true, err: fmt.Errorf("endpoint %s: %w", session.Endpoint, errUnreachable)}
	}
	if e.dead.Load() && c.mayMove(session, m) {
		return nil, &fault{ails: true, err: errDied}
	}
	send := e.RoundTrip
	if m.repeatable {
		send = e.ask
	}
	var sent atomic.Bool
	res, err := send(c.request(withTrace(ctx, &sent), e, session, m))
	if err != nil {
		return nil, &fault{sent: sent.Load(), ails: !e.healthy(), err: err}
	}
	// Some servers answer 404 to every GET, meaning that they have no such stream.
	if res.StatusCode == http.StatusNotFound && session.UpstreamSession != "" && m.method == http.MethodPost {
		return c.suspect(ctx, session, m, res)
	}
	return res, nil
}

// withTrace notes in sent whether anything may have reached the upstream. The transport tries again by itself only what it knows not
// to have sent, so each of its attempts starts from nothing.
func withTrace(ctx context.Context, sent *atomic.Bool) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { sent.Store(false) },
		WroteHeaders: func() { sent.Store(true) },
	})
}

// request returns the request that carries m to an endpoint.
func (c *upstreamCall) request(ctx context.Context, e *endpoint, session cluster.Session, m message) *http.Request {
	body := m.body
	if m.answers {
		body = answersFor(body, session.Generation())
	}
	req := (&http.Request{Method: m.method, URL: e.target(c.query), Host: e.host, Header: m.header}).WithContext(ctx)
	setBody(req, body)
	if req.Header == nil {
		req.Header = c.header.Clone()
	}
	if session.UpstreamSession != "" {
		req.Header.Set(mcp.HeaderSessionID, session.UpstreamSession)
	}
	c.p.cfg.Auth.Outbound(req.Header) // again: what replaces the client's token may have changed since
	return req
}

// resume asks the upstream for what follows an event of an answer. errNoSuchStream means that it does not have that, and never will.
func (c *upstreamCall) resume(ctx context.Context, last string) (io.ReadCloser, error) {
	res, err := c.do(ctx, message{method: http.MethodGet, header: c.streamHeader(last), repeatable: true, bound: true})
	if err != nil {
		return nil, err
	}
	if !isEventStream(res) {
		discard(res)
		if res.StatusCode >= http.StatusInternalServerError || res.StatusCode == http.StatusConflict {
			return nil, fmt.Errorf("the upstream answered %d", res.StatusCode)
		}
		return nil, errNoSuchStream
	}
	return res.Body, nil
}

// streamHeader is the header of a GET for events. last is the upstream's id of the event to go on after; empty: from now on.
func (c *upstreamCall) streamHeader(last string) http.Header {
	h := c.header.Clone()
	h.Set("Accept", mcp.MediaTypeEventStream)
	for _, name := range []string{"Content-Type", "Content-Length", mcp.HeaderLastEventID} {
		h.Del(name)
	}
	if last != "" {
		h.Set(mcp.HeaderLastEventID, last)
	}
	return h
}

// discard reads a little of a body that nobody wants, so that its connection can be used again. The end of a stream may never come.
func discard(res *http.Response) {
	if !isEventStream(res) {
		_, _ = io.CopyN(io.Discard, res.Body, maxIgnoredBody)
	}
	_ = res.Body.Close() // only read
}

// hasOthers reports whether the upstream has a healthy endpoint beside those named.
func (u *upstream) hasOthers(names ...string) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return slices.ContainsFunc(u.listed, func(e *endpoint) bool { return !slices.Contains(names, e.name) && e.healthy() })
}
