package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// tracerName is the instrumentation scope of the spans of this package.
const tracerName = "github.com/tapwire/shadowcat-cluster/proxy"

// What the semantic conventions for MCP call these, which are in no package yet. The session is named by its public id.
const (
	methodKey  attribute.Key = "mcp.method.name"
	sessionKey attribute.Key = "mcp.session.id"
)

// traceContext reads and writes traceparent and tracestate. What baggage says passes through as it is.
var traceContext propagation.TraceContext

// beginSpan begins the request's span, once it is known what the client says of its own: in a header, or else in params._meta, which
// takes reading the body. So it begins late, with the time when the request came in.
func (x *exchange) beginSpan() {
	if x.p.tracer == nil || x.span != nil {
		return
	}
	ctx := traceContext.Extract(x.r.Context(), propagation.HeaderCarrier(x.r.Header))
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(x.started)}
	if told := x.toldInBody(); told.IsValid() {
		if trace.SpanContextFromContext(ctx).IsValid() {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: told}))
		} else {
			ctx = trace.ContextWithRemoteSpanContext(ctx, told)
		}
	}
	ctx, x.span = x.p.tracer.Start(ctx, x.spanName(), options...)
	x.r = x.r.WithContext(ctx)
	x.request.span = x.span.SpanContext()
}

// toldInBody is the trace that the message says it belongs to; invalid when it says nothing.
func (x *exchange) toldInBody() trace.SpanContext {
	if x.msg.TraceParent == "" {
		return trace.SpanContext{}
	}
	carrier := propagation.MapCarrier{"traceparent": x.msg.TraceParent, "tracestate": x.msg.TraceState}
	return trace.SpanContextFromContext(traceContext.Extract(context.Background(), carrier))
}

// spanName is one of few: what clients make up is not in it.
func (x *exchange) spanName() string {
	switch {
	case x.msg.Method != "":
		return mcp.MethodLabel(x.msg.Method)
	case x.upstream != nil:
		return methodLabel(x.r.Method) + " " + x.upstream.Path()
	default:
		return methodLabel(x.r.Method)
	}
}

// endSpan ends the request's span, if it has not ended yet. status is what the client was sent, 0: nothing. Its attributes hold nothing
// of what the client or the upstream has said.
func (x *exchange) endSpan(status int) {
	if x.span == nil || !x.span.IsRecording() {
		return
	}
	attributes := []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(methodLabel(x.r.Method)),
		attribute.String("shadowcat.era", string(x.era)),
		attribute.String("shadowcat.request_id", x.request.id),
	}
	add := func(key attribute.Key, value string) {
		if value != "" {
			attributes = append(attributes, key.String(value))
		}
	}
	if x.upstream != nil {
		attributes = append(attributes, semconv.HTTPRoute(x.upstream.Path()), attribute.String("shadowcat.upstream", x.upstream.Name))
	}
	add(methodKey, mcp.MethodLabel(x.msg.Method))
	add(sessionKey, x.sessionText())
	add("shadowcat.lease", string(x.leased))
	add("shadowcat.refusal", string(x.refused))
	add("shadowcat.limit", x.limit)
	if status == 0 {
		add(semconv.ErrorTypeKey, "client_gone")
	} else {
		attributes = append(attributes, semconv.HTTPResponseStatusCode(status))
	}
	if status >= http.StatusInternalServerError {
		add(semconv.ErrorTypeKey, strconv.Itoa(status))
		x.span.SetStatus(codes.Error, "")
	}
	x.span.SetAttributes(attributes...)
	x.span.End()
}

// isEndless reports whether an answer is a stream that is not the answer to something. It may last for days, and a span is told of when
// it ends: so the request's span ends when the stream begins.
func (x *exchange) isEndless(res *http.Response) bool {
	return isEventStream(res) && (x.r.Method == http.MethodGet || x.msg.Method == mcp.MethodListen)
}

// part begins a span of something that ctx does on behalf of the request of another context.
func (p *Proxy) part(ctx, request context.Context, name string) (context.Context, trace.Span) {
	ctx = trace.ContextWithSpan(ctx, trace.SpanFromContext(request))
	if p.tracer == nil {
		return ctx, trace.SpanFromContext(ctx)
	}
	return p.tracer.Start(ctx, name)
}

// tracedTransport sends requests, each with a span that lasts until the answer's header has come, and tells the upstream of it.
type tracedTransport struct {
	next   http.RoundTripper
	tracer trace.Tracer
}

func traced(next http.RoundTripper, provider trace.TracerProvider) http.RoundTripper {
	if provider == nil {
		return next
	}
	return tracedTransport{next: next, tracer: provider.Tracer(tracerName)}
}

// RoundTrip implements http.RoundTripper. The request's header must be the caller's to change. What no client's request is the cause of
// is not traced; what goes on after its span has ended only tells the upstream of that.
func (t tracedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	cause := trace.SpanFromContext(ctx)
	if !cause.SpanContext().IsValid() {
		return t.next.RoundTrip(req)
	}
	if !cause.IsRecording() {
		inject(ctx, req.Header)
		return t.next.RoundTrip(req)
	}
	ctx, span := t.tracer.Start(ctx, req.Method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(target(req)...))
	defer span.End()
	inject(ctx, req.Header)
	res, err := t.next.RoundTrip(req)
	switch {
	case err != nil:
		span.SetAttributes(semconv.ErrorTypeKey.String(errorType(err)))
		span.SetStatus(codes.Error, "")
	case res.StatusCode >= http.StatusBadRequest:
		span.SetAttributes(semconv.HTTPResponseStatusCode(res.StatusCode), semconv.ErrorTypeKey.String(strconv.Itoa(res.StatusCode)))
		span.SetStatus(codes.Error, "")
	default:
		span.SetAttributes(semconv.HTTPResponseStatusCode(res.StatusCode))
	}
	return res, err
}

// inject writes the trace of a context into a header, in place of the client's: a traceparent without a tracestate is whole.
func inject(ctx context.Context, h http.Header) {
	h.Del("tracestate")
	traceContext.Inject(ctx, propagation.HeaderCarrier(h))
}

// target describes where a request goes. The URL's path and query may be secret.
func target(req *http.Request) []attribute.KeyValue {
	attributes := []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(req.Method), semconv.ServerAddress(req.URL.Hostname())}
	if port, err := strconv.Atoi(req.URL.Port()); err == nil {
		attributes = append(attributes, semconv.ServerPort(port))
	}
	return attributes
}

// errorType says in a word why there is no answer. What the error says itself may quote what the upstream has sent.
func errorType(err error) string {
	op, isOp := errors.AsType[*net.OpError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return "timeout"
	case isOp && op.Op == "dial":
		return "unreachable"
	default:
		return "connection_lost"
	}
}
