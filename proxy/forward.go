package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// sender sends a request to an upstream, or answers it in another way. ctx bounds that.
type sender func(ctx context.Context, req *http.Request) (*http.Response, error)

// transport is a sender as httputil.ReverseProxy wants it. The context is its own and not the request's: there httputil.ReverseProxy asks
// to be told of informational answers, which are not passed on, and net/http takes long to join such a wish with another.
type transport struct {
	ctx  context.Context //nolint:containedctx // of one request, which it belongs to
	send sender
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) { return t.send(t.ctx, req) }

// forward has the request sent and copies the answer to the client. ctx bounds both. answered sees the answer before the client does,
// and may refuse it.
//
// A httputil.ReverseProxy is a set of hooks; each exchange has its own, so that the hooks know what they are for. Its
// FlushInterval is left zero: it flushes every piece of an event stream, and of any answer of unknown length, by itself,
// and a short JSON answer of known length is not worth two packets.
func (x *exchange) forward(ctx context.Context, send sender, answered func(*http.Response) error) {
	reverse := httputil.ReverseProxy{
		Rewrite:   x.rewrite,
		Transport: transport{ctx, send},
		ModifyResponse: func(res *http.Response) error {
			dropCORS(res.Header)
			x.p.cfg.Auth.Inbound(res.Header)
			res.Trailer.Del(mcp.HeaderSessionID)
			if err := x.checkAnswer(res); err != nil {
				return err
			}
			if err := answered(res); err != nil {
				return err
			}
			if mcp.IsMediaType(res.Header.Get("Content-Type"), mcp.MediaTypeEventStream) {
				x.p.load.stream(&x.place)
			}
			x.untilExpiry(res)
			if x.isEndless(res) {
				x.endSpan(res.StatusCode)
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { x.notAnswered(ctx, err) },
		BufferPool:   x.bufferPool(),
		ErrorLog:     slog.NewLogLogger(failureLog{x}, slog.LevelDebug),
	}
	reverse.ServeHTTP(x.w, x.outbound(ctx))
}

// maxEndpointTries is how many endpoints a request that belongs to no session is sent to at most, one after another.
const maxEndpointTries = 3

// sendToEndpoint sends a request that belongs to no session to the endpoint that was chosen for it, or to another one when that cannot
// be reached. An initialize goes to another one also when it is not answered in time: a session that comes of the first after all is
// nobody's, and idles out there.
func (x *exchange) sendToEndpoint(ctx context.Context, req *http.Request) (*http.Response, error) {
	deadline := time.Now().Add(x.p.cfg.InitializeTimeout)
	var avoid []string
	for {
		out := req.Clone(withTrace(ctx, &x.sent))
		setBody(out, x.body)
		out.URL = x.endpoint.target(req.URL.RawQuery)
		out.Host = x.endpoint.host // servers on loopback refuse any other
		avoid = append(avoid, x.endpoint.name)
		res, err := x.sendOnce(out, deadline, avoid)
		isRepeatable := !x.sent.Load() || x.msg.Initializes || mcp.ReadOnly(x.msg.Method)
		if err == nil || ctx.Err() != nil || !isRepeatable || len(avoid) == maxEndpointTries {
			return res, err
		}
		other, chosen := x.upstream.choose(ctx, avoid...)
		if chosen != nil || slices.Contains(avoid, other.name) {
			return nil, err
		}
		x.endpoint = other
	}
}

// sendOnce sends a request to its endpoint, the latest of those that were tried.
func (x *exchange) sendOnce(req *http.Request, deadline time.Time, tried []string) (*http.Response, error) {
	switch {
	case x.msg.Initializes:
		return x.endpoint.open(req, deadline, len(tried) < maxEndpointTries && x.upstream.hasOthers(tried...))
	case mcp.ReadOnly(x.msg.Method):
		return x.endpoint.ask(req)
	default:
		return x.endpoint.RoundTrip(req)
	}
}

// outbound returns the request without its body, which has been read: the sender sends that, once or several times.
func (x *exchange) outbound(ctx context.Context) *http.Request {
	req := x.r.WithContext(ctx)
	req.TransferEncoding, req.Trailer = nil, nil
	setBody(req, nil)
	return req
}

// setBody gives a request a body from memory. GetBody lets the transport try again on another connection when it could not send anything on
// the first.
func setBody(req *http.Request, body []byte) {
	req.ContentLength = int64(len(body))
	req.Body, req.GetBody = http.NoBody, nil
	if len(body) > 0 {
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
}

// rewrite makes the client's request the proxy's own. Hop-by-hop headers and what the client claims about forwarding are
// gone already.
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	h := pr.Out.Header
	for _, name := range []string{
		// No protocol switch: it would tunnel past everything that the proxy checks.
		"Connection", "Upgrade",
		// The body is sent at once.
		"Expect",
		// Which pages may call was decided here; an upstream would compare them with its own Host.
		"Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest",
		mcp.HeaderSessionID,
	} {
		delete(h, name)
	}
	if x.era == mcp.EraSession {
		h.Del("Accept-Encoding") // the answer must be read
	}
	unreplayable(h)
	pr.SetXForwarded()
	h[headerRequestID] = x.w.requestID
	x.p.cfg.Auth.Outbound(h)
}

// unreplayable keeps net/http from sending a request twice by itself: it does that with a POST that has one of these headers, by its
// canonical name, and whose connection broke after it was sent. Upstreams read a name in any case.
func unreplayable(h http.Header) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values := h[name]; len(values) > 0 {
			delete(h, name)
			h[strings.ToLower(name)] = values
		}
	}
}

// checkAnswer refuses answers that must not reach a client.
func (x *exchange) checkAnswer(res *http.Response) error {
	switch {
	case res.StatusCode == http.StatusSwitchingProtocols:
		return upstreamUnavailable("the upstream tried to switch protocols")
	case res.StatusCode >= 300 && res.StatusCode < 400 && res.StatusCode != http.StatusNotModified:
		// A client that followed it would carry its token past the proxy.
		x.log().Warn("upstream redirects; configure the URL that it redirects to", "upstream", x.upstream.Name, "to", location(res))
		return upstreamUnavailable("the upstream redirects to another URL, which must be configured instead")
	}
	return nil
}

// location is where a redirect leads to, without its query, which may be secret.
func location(res *http.Response) string {
	u, err := res.Location()
	if err != nil {
		return ""
	}
	return strings.Join([]string{u.Scheme, "://", u.Host, u.Path}, "")
}

// notAnswered answers a request that has no answer, or one that was refused.
func (x *exchange) notAnswered(ctx context.Context, err error) {
	var refused refusal
	switch cause := context.Cause(ctx); {
	case errors.As(err, &refused):
		if x.r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // what failed may have failed for that
		}
		x.refuse(refused)
	case errors.Is(err, errSessionLost):
		outcome, why := RecoveryOff, "recovery is off"
		if !x.p.cfg.NoRecover {
			outcome, why = RecoveryEnded, "it lost the new one, too"
		}
		x.p.cfg.Observer.RecoveryDone(outcome)
		x.p.endLost(x.detached(), x.call, why)
		x.refuse(errSessionNotFound)
	case errors.Is(cause, errSessionEnded):
		x.refuse(errSessionNotFound)
	case errors.Is(cause, errInitializeTimeout), errors.Is(err, errInitializeTimeout):
		x.refuse(upstreamUnavailable(errInitializeTimeout.Error()))
	case errors.Is(cause, errNotAccepted) && x.sent.Load():
		x.refuse(refusal{status: http.StatusServiceUnavailable, reason: mcp.ReasonMayHaveRun, message: errNotAccepted.Error()})
	case x.r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client is gone
	case errors.Is(cause, errDraining) && !x.sent.Load():
		x.refuse(upstreamUnavailable("this replica is stopping; retry"))
	case errors.Is(cause, errDraining):
		x.log().Warn("a request was cut: the replica stops, and its upstream had not answered in time", "upstream", x.upstream.Name, "session", x.sessionText())
		x.refuse(refusal{status: http.StatusServiceUnavailable, reason: mcp.ReasonMayHaveRun, message: cutByDrain + "; the request may have run"})
	default:
		x.log().Warn("upstream did not answer", "upstream", x.upstream.Name, "session", x.sessionText(), "sent", x.sent.Load(), "error", err)
		x.refuse(x.upstreamFailed())
	}
}

// upstreamFailed says what a client may conclude from a connection that failed before the answer's header came.
func (x *exchange) upstreamFailed() refusal {
	switch {
	case !x.sent.Load():
		return upstreamUnavailable("the upstream could not be reached; the request was not processed")
	case x.msg.Initializes || x.r.Method != http.MethodPost:
		return upstreamUnavailable("the connection to the upstream was lost before it answered; nothing came of the request")
	default:
		// No Retry-After: whether a repetition does harm, only the client can know.
		return refusal{
			status:  http.StatusServiceUnavailable,
			reason:  mcp.ReasonMayHaveRun,
			message: "the connection to the upstream was lost before it answered; the request may have run",
		}
	}
}

// bufferPool is where the answer's copy buffer comes from. A stream holds its own for as long as it lasts, mostly idle, so it has a
// small one.
func (x *exchange) bufferPool() httputil.BufferPool {
	if x.r.Method == http.MethodGet {
		return idleBuffer{}
	}
	return bufferPool{x.p}
}

// idleBuffer lends buffers of a stream's size.
type idleBuffer struct{}

func (idleBuffer) Get() []byte { return make([]byte, idleBufferSize) }

func (idleBuffer) Put([]byte) {}

// bufferPool lends copy buffers to httputil.ReverseProxy.
type bufferPool struct{ p *Proxy }

func (b bufferPool) Get() []byte {
	if buf, ok := b.p.buffers.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, copyBufferSize)
}

func (b bufferPool) Put(buf []byte) { b.p.buffers.Put(&buf) }
