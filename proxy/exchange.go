package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// statusClientGone is what is logged and counted when a client left before it was answered. It is never sent.
const statusClientGone = 499

// exchange is one request on its way through the proxy. It belongs to the goroutine that serves the request.
type exchange struct {
	p           *Proxy
	w           *responseWriter
	r           *http.Request
	started     time.Time
	request     requestRef
	upstream    *upstream // nil until the path is known
	identity    auth.Identity
	span        trace.Span // nil until it has begun, and without tracing
	denied      string     // why nobody was let in; empty unless that is so
	refused     mcp.Reason // why the proxy itself refused the request; may be empty though it did
	limit       string     // the setting that was reached, if it was for that
	endpoint    *endpoint  // of the upstream, where the request goes; nil until that is known
	era         mcp.Era
	body        []byte
	place       place       // what it takes of the replica's capacity
	leaveStream func()      // ends the client's part in the place of a stream that goes on without this request; may be nil
	msg         mcp.Message // what the body says; zero for requests without one

	session         cluster.ID           // zero until known
	leased          cluster.LeaseOutcome // empty until a lease was asked for
	token           cluster.Token        // the client's
	record          cluster.Session      // as it was when the request was admitted
	upstreamSession string               // of initialize: what the upstream calls the session
	call            *upstreamCall        // of a request in a session, once it is sent
	streamed        bool                 // the answer is a stream that goes on without this request
	recorded        bool                 // the client's message is

	sent atomic.Bool // some of the request may have reached the upstream; set by net/http's goroutines
}

func newExchange(p *Proxy, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{
		p:       p,
		w:       newResponseWriter(w, p.cfg.WriteTimeout),
		r:       r,
		started: time.Now(),
		era:     mcp.EraUnknown,
	}
	x.identify()
	return x
}

// protocolVersion is the value of the request's MCP-Protocol-Version header. Several headers are one list, which is no
// version.
func (x *exchange) protocolVersion() string {
	return strings.Join(x.r.Header.Values(mcp.HeaderProtocolVersion), ", ")
}

// detached returns a context for cleaning up after the request: it outlives the client.
func (x *exchange) detached() context.Context { return context.WithoutCancel(x.r.Context()) }

// recoverPanic keeps a fault in one request from being more than that.
func (x *exchange) recoverPanic() {
	fault := recover()
	if fault == nil {
		return
	}
	if fault == http.ErrAbortHandler { //nolint:errorlint // a panic's value, compared as net/http compares it
		panic(fault)
	}
	x.log().Error("request handler panicked", "panic", fault, "stack", string(debug.Stack()), "session", x.sessionText())
	if x.w.status != 0 {
		panic(http.ErrAbortHandler) // too late to say so
	}
	x.refuse(refusal{status: http.StatusInternalServerError, message: "the proxy failed on this request; its log says more"})
}

// finish tells everyone who wants to know.
func (x *exchange) finish() {
	x.p.load.give(&x.place)
	if x.leaveStream != nil {
		x.leaveStream()
	}
	// What net/http has still to send (the end of a chunked body) must not meet a deadline that passed while the stream
	// was idle.
	x.w.extend()
	x.beginSpan()
	info := RequestInfo{
		Session:   x.session,
		Method:    methodLabel(x.r.Method),
		RPCMethod: mcp.MethodLabel(x.msg.Method),
		Era:       x.era,
		Status:    x.w.status,
		Duration:  time.Since(x.started),
		Denied:    x.denied,
		Refused:   x.refused,
		Limit:     x.limit,
	}
	if info.Status == 0 {
		info.Status = statusClientGone
	}
	if x.upstream != nil {
		info.Upstream = x.upstream.Name
	}
	x.endSpan(x.w.status)
	x.logDone(info)
	x.p.cfg.Observer.RequestDone(info)
}

// logDone logs the request, at debug.
func (x *exchange) logDone(info RequestInfo) {
	if !x.p.log.Enabled(x.r.Context(), slog.LevelDebug) {
		return
	}
	x.log().LogAttrs(x.r.Context(), slog.LevelDebug, "request",
		slog.String("method", info.Method), slog.String("upstream", info.Upstream), slog.String("rpc", info.RPCMethod),
		slog.String("era", string(info.Era)), slog.Int("status", info.Status), slog.Float64("duration_ms", milliseconds(info.Duration)),
		slog.String("session", x.sessionText()))
}

// sessionText is the session's ID for a log, empty when there is none.
func (x *exchange) sessionText() string {
	if x.session == (cluster.ID{}) {
		return ""
	}
	return x.session.String()
}

// milliseconds is a duration for a log, to the hundredth.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)/(10*time.Microsecond)) / 100
}

func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}
