package proxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

const (
	clientTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan  = "00f067aa0ba902b7"
	traceparent = "00-" + clientTrace + "-" + clientSpan + "-01"

	otherTrace = "0af7651916cd43dd8448eb211c80319c"
	otherSpan  = "b7ad6b7169203331"
)

// tracer records spans.
type tracer struct {
	*tracetest.SpanRecorder

	sampler sdktrace.Sampler
}

func newTracer() *tracer {
	return &tracer{SpanRecorder: tracetest.NewSpanRecorder(), sampler: sdktrace.AlwaysSample()}
}

// on traces a proxy.
func (s *tracer) on(c *proxy.Config) {
	c.Tracing = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.SpanRecorder), sdktrace.WithSampler(s.sampler))
}

// named returns the spans of a name that have ended, the oldest first.
func (s *tracer) named(name string) (spans []sdktrace.ReadOnlySpan) {
	for _, span := range s.Ended() {
		if span.Name() == name {
			spans = append(spans, span)
		}
	}
	return spans
}

// one waits for the span of a name, of which there must be no more.
func (s *tracer) one(t *testing.T, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	eventually(t, "a span "+name, func() bool { return len(s.named(name)) > 0 })
	spans := s.named(name)
	if len(spans) > 1 {
		t.Fatalf("there are %d spans %s, want 1", len(spans), name)
	}
	return spans[0]
}

// children are the spans under another that have ended.
func (s *tracer) children(of sdktrace.ReadOnlySpan) (spans []sdktrace.ReadOnlySpan) {
	for _, span := range s.Ended() {
		if span.Parent().SpanID() == of.SpanContext().SpanID() {
			spans = append(spans, span)
		}
	}
	return spans
}

// attributes are a span's, as text.
func attributes(span sdktrace.ReadOnlySpan) map[attribute.Key]string {
	all := make(map[attribute.Key]string)
	for _, a := range span.Attributes() {
		all[a.Key] = a.Value.String()
	}
	return all
}

func wantAttributes(t *testing.T, span sdktrace.ReadOnlySpan, want map[attribute.Key]string) {
	t.Helper()
	got := attributes(span)
	for key, value := range want {
		if got[key] != value {
			t.Errorf("span %s: %s is %q, want %q", span.Name(), key, got[key], value)
		}
	}
}

func TestARequestIsASpanUnderTheClientsWithItsUpstreamCallBelow(t *testing.T) {
	t.Parallel()
	spans, u := newTracer(), newUpstream(t, nil)
	r := newFleet(t, u.url, func(c *cluster.Config) { c.Lease, c.RequestRate = time.Minute, 0 }).replica(spans.on)
	token := r.openSession()
	id, _, _ := strings.Cut(token, ".")
	post(r.url, token, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`).send(t)
	wantAttributes(t, spans.one(t, "tools/list"), map[attribute.Key]string{"shadowcat.lease": "granted"})
	post(r.url, token, pingBody).with("Traceparent", traceparent).with("Tracestate", "vendor=1").with("Baggage", "k=v").with("X-Request-Id", "r-1").send(t)

	span := spans.one(t, "ping")
	if span.SpanKind() != trace.SpanKindServer || span.Parent().SpanID().String() != clientSpan || span.SpanContext().TraceID().String() != clientTrace {
		t.Errorf("the span is a %v of %v under %v", span.SpanKind(), span.SpanContext(), span.Parent())
	}
	wantAttributes(t, span, map[attribute.Key]string{
		"mcp.method.name": "ping", "mcp.session.id": id, "http.request.method": "POST", "http.route": "/mcp", "http.response.status_code": "200",
		"shadowcat.upstream": "", "shadowcat.lease": "hit", "shadowcat.era": "session", "shadowcat.request_id": "r-1",
	})
	children := spans.children(span)
	if len(children) != 1 || children[0].Name() != "POST" || children[0].SpanKind() != trace.SpanKindClient {
		t.Fatalf("spans below it: %v", children)
	}
	host, port, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(u.url, "http://"), "/endpoint"), ":")
	wantAttributes(t, children[0], map[attribute.Key]string{
		"http.request.method": "POST", "http.response.status_code": "200", "server.address": host, "server.port": port,
	})
	requests := u.requests()
	h := requests[len(requests)-1].header
	want := "00-" + clientTrace + "-" + children[0].SpanContext().SpanID().String() + "-01"
	if h.Get("Traceparent") != want || h.Get("Tracestate") != "vendor=1" || h.Get("Baggage") != "k=v" {
		t.Errorf("the upstream is told %v, want traceparent %s", h, want)
	}
	opened := spans.one(t, "initialize")
	if opened.Parent().IsValid() {
		t.Errorf("a request without a trace is under %v", opened.Parent())
	}
	wantAttributes(t, opened, map[attribute.Key]string{"mcp.session.id": id, "shadowcat.lease": ""})
}

func TestTheTraceInAMessageCountsWhereNoHeaderSaysOne(t *testing.T) {
	t.Parallel()
	const inBody = `{"jsonrpc":"2.0", "id":1,"method":"ping","params":{"_meta":{"traceparent":"00-` + otherTrace + "-" + otherSpan + `-01", "tracestate":"a=b"}}}`
	for name, header := range map[string]string{"alone": "", "with a header": traceparent, "with a header that is none": "00-zz"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spans, u := newTracer(), newUpstream(t, nil)
			r := newFleet(t, u.url).replica(spans.on)
			post(r.url, r.openSession(), inBody).with("Traceparent", header).with("Tracestate", "old=1").send(t)
			span := spans.one(t, "ping")
			if header == traceparent {
				links := span.Links()
				if span.Parent().SpanID().String() != clientSpan || len(links) != 1 || links[0].SpanContext.SpanID().String() != otherSpan {
					t.Errorf("it is under %v, with links %v", span.Parent(), links)
				}
			} else if span.Parent().SpanID().String() != otherSpan || span.SpanContext().TraceState().String() != "a=b" {
				t.Errorf("it is under %v, with state %v", span.Parent(), span.SpanContext().TraceState())
			}
			requests := u.requests()
			got := requests[len(requests)-1]
			if got.body != inBody {
				t.Errorf("the upstream got %s", got.body)
			}
			if state := span.SpanContext().TraceState().String(); got.header.Get("Tracestate") != state {
				t.Errorf("the upstream is told the state %q, want %q", got.header.Get("Tracestate"), state)
			}
		})
	}
}

func TestAStateWithoutATraceIsNotPassedOn(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica(newTracer().on)
	post(r.url, r.openSession(), pingBody).with("Tracestate", "vendor=1").send(t)
	requests := u.requests()
	if h := requests[len(requests)-1].header; h.Get("Traceparent") == "" || h.Get("Tracestate") != "" {
		t.Errorf("the upstream is told %v", h)
	}
}

func TestWithoutTracingTheClientsTracePassesAsItIs(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica()
	post(r.url, r.openSession(), pingBody).with("Traceparent", traceparent).with("Tracestate", "vendor=1").with("Baggage", "k=v").send(t)
	requests := u.requests()
	if h := requests[len(requests)-1].header; h.Get("Traceparent") != traceparent || h.Get("Tracestate") != "vendor=1" || h.Get("Baggage") != "k=v" {
		t.Errorf("the upstream is told %v", h)
	}
}

func TestATraceThatIsNotSampledGoesOnAndLeavesNoSpan(t *testing.T) {
	t.Parallel()
	spans, u := newTracer(), newUpstream(t, nil)
	spans.sampler = sdktrace.ParentBased(sdktrace.AlwaysSample())
	r := newFleet(t, u.url).replica(spans.on)
	post(r.url, r.openSession(), pingBody).with("Traceparent", strings.TrimSuffix(traceparent, "01")+"00").send(t)
	requests := u.requests()
	if got := requests[len(requests)-1].header.Get("Traceparent"); !strings.HasPrefix(got, "00-"+clientTrace+"-") || !strings.HasSuffix(got, "-00") {
		t.Errorf("the upstream is told %q", got)
	}
	spans.one(t, "initialize")
	if got := spans.named("ping"); len(got) != 0 {
		t.Errorf("there is a span: %v", got)
	}
}

func TestARecoveryAndItsTriesAreSpans(t *testing.T) {
	t.Parallel()
	lost := make(chan bool, 1)
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method == "ping" && len(lost) > 0 {
			<-lost
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	})
	spans := newTracer()
	r := newFleet(t, u.url).replica(spans.on)
	token := r.openSession()
	lost <- true
	wantsAnswer(t, post(r.url, token, pingBody).send(t))
	span := spans.one(t, "ping")
	var names []string
	for _, child := range spans.children(span) {
		names = append(names, fmt.Sprint(child.Name(), " ", attributes(child)["http.response.status_code"]))
	}
	if got := strings.Join(names, ", "); got != "POST 404, recover session , POST 200" {
		t.Errorf("below the request are: %s", got)
	}
	recovery := spans.one(t, "recover session")
	id, _, _ := strings.Cut(token, ".")
	wantAttributes(t, recovery, map[attribute.Key]string{"shadowcat.recovery": "made", "mcp.session.id": id})
	if below := spans.children(recovery); len(below) != 2 {
		t.Errorf("below the recovery are %v, want initialize and initialized", below)
	}
}

func TestTheSpanOfAnEndlessStreamEndsWhenTheStreamBegins(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if r.Method != http.MethodGet && got.msg.Method != "subscriptions/listen" {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flush(w)
		<-r.Context().Done()
		return true
	})
	spans := newTracer()
	r := newFleet(t, u.url).replica(spans.on)
	listening := get(r.url, r.openSession()).open(t)
	wantAttributes(t, spans.one(t, "GET /mcp"), map[attribute.Key]string{"http.response.status_code": "200", "shadowcat.lease": "granted"})
	isOpen := func(method, rpc string) bool {
		return !slices.ContainsFunc(r.requests(), func(i proxy.RequestInfo) bool { return i.Method == method && i.RPCMethod == rpc })
	}
	if !isOpen(http.MethodGet, "") {
		t.Error("the stream has ended before its span")
	}
	_ = listening.Body.Close()

	subscribed := listenRequest(r.url).open(t)
	wantAttributes(t, spans.one(t, "subscriptions/listen"), map[attribute.Key]string{"http.response.status_code": "200", "shadowcat.era": "stateless"})
	if !isOpen(http.MethodPost, "subscriptions/listen") {
		t.Error("the stream has ended before its span")
	}
	_ = subscribed.Body.Close()
}

func TestRefusalsAreSpansThatSayWhy(t *testing.T) {
	t.Parallel()
	spans := newTracer()
	r := newFleet(t, newUpstream(t, nil).url).replica(spans.on)
	post(r.url, "", pingBody).send(t)
	span := spans.one(t, "ping")
	wantAttributes(t, span, map[attribute.Key]string{
		"shadowcat.refusal": "session_required", "http.response.status_code": "400", "error.type": "", "mcp.session.id": "",
	})
	if span.Status().Code != codes.Unset {
		t.Errorf("a client's mistake is an error of the server: %v", span.Status())
	}
	post(r.url, unknownToken(t), `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`).send(t)
	wantAttributes(t, spans.one(t, "tools/list"), map[attribute.Key]string{"shadowcat.lease": "not_found", "shadowcat.refusal": "session_not_found"})
	post(strings.TrimSuffix(r.url, "/mcp")+"/nothing", "", pingBody).send(t)
	wantAttributes(t, spans.one(t, "POST"), map[attribute.Key]string{"http.response.status_code": "404", "http.route": ""})
}

func TestAnUpstreamThatIsAwayIsAnErrorOfBothSpans(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return false
		}
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_, _ = conn.Write([]byte("hidden-payload\r\n\r\n"))
			_ = conn.Close()
		}
		return true
	})
	spans := newTracer()
	r := newFleet(t, u.url).replica(spans.on)
	post(r.url, r.openSession(), `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`).send(t)
	span := spans.one(t, "tools/call")
	wantAttributes(t, span, map[attribute.Key]string{"http.response.status_code": "503", "shadowcat.refusal": "may_have_run", "error.type": "503"})
	children := spans.children(span)
	if len(children) != 1 || children[0].Status().Code != codes.Error || span.Status().Code != codes.Error {
		t.Fatalf("status %v, below it: %v", span.Status(), children)
	}
	wantAttributes(t, children[0], map[attribute.Key]string{"error.type": "connection_lost"})
	if all := fmt.Sprint(tracetest.SpanStubsFromReadOnlySpans(spans.Ended())); strings.Contains(all, "hidden") {
		t.Errorf("a span holds what the upstream has sent: %s", all)
	}
}

func TestAClientThatLeavesIsToldByItsSpanAndLogLinesNameTheTrace(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	u := newUpstream(t, func(_ http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "subscriptions/listen" {
			return false
		}
		close(arrived)
		<-r.Context().Done()
		return true
	})
	var log logBuffer
	spans := newTracer()
	r := newFleet(t, u.url).replica(spans.on, func(c *proxy.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	call := listenRequest(r.url).with("Traceparent", traceparent)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, call.method, call.url, strings.NewReader(call.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = call.header
	go func() { <-arrived; leave() }()
	if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
		_ = res.Body.Close()
		t.Fatalf("there is an answer: %d", res.StatusCode)
	}
	span := spans.one(t, "subscriptions/listen")
	wantAttributes(t, span, map[attribute.Key]string{"error.type": "client_gone", "http.response.status_code": ""})
	want := "trace_id=" + clientTrace + " span_id=" + span.SpanContext().SpanID().String()
	eventually(t, "the request to be logged", func() bool { return strings.Contains(log.String(), want) })
}

// listenRequest is a subscriptions/listen of revision 2026-07-28.
func listenRequest(url string) request {
	return post(url, "", `{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"_meta":{`+
		`"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`).
		with("Mcp-Protocol-Version", "2026-07-28").with("Mcp-Method", "subscriptions/listen")
}
