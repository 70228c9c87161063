package redisstore_test

import (
	"context"
	"fmt"
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
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// traced is a store whose spans are recorded, and the tracer of who asks it.
type traced struct {
	*redisstore.Store

	spans  *tracetest.SpanRecorder
	tracer trace.Tracer
}

func newTraced(t *testing.T, change func(*cluster.Config)) *traced {
	t.Helper()
	server, err := redisstore.StartEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	cfg := cluster.DefaultConfig()
	cfg.StoreTimeout = 10 * time.Second // a busy machine is no store fault
	change(&cfg)
	store, err := redisstore.Open(server.URL(), redisstore.Options{Config: cfg, Tracing: provider})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return &traced{Store: store, spans: spans, tracer: provider.Tracer("test")}
}

// under returns a context with a span that ends with the test.
func (s *traced) under(t *testing.T) context.Context {
	t.Helper()
	ctx, span := s.tracer.Start(t.Context(), "caller")
	t.Cleanup(func() { span.End() })
	return ctx
}

// names returns the spans that have ended, but for those of making a connection.
func (s *traced) names() (names []string) {
	for _, span := range s.spans.Ended() {
		if !connects(span) {
			names = append(names, span.Name())
		}
	}
	return names
}

// connects reports whether a span is a part of making a connection.
func connects(span sdktrace.ReadOnlySpan) bool {
	return span.Name() == "redis.dial" || span.Name() == "hello"
}

func (s *traced) create(ctx context.Context, t *testing.T) cluster.Session {
	t.Helper()
	created, err := s.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{
		Upstream: "hidden-upstream", Principal: "hidden-principal", ClientName: "hidden-client", Initialize: []byte(`{"hidden":"payload"}`),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return created.Session
}

func TestScriptsAreSpansUnderTheirCallersNamedAndNoMore(t *testing.T) {
	t.Parallel()
	s := newTraced(t, func(*cluster.Config) {})
	ctx := s.under(t)
	session := s.create(ctx, t)
	s.Check(ctx, []cluster.ID{session.ID}) // in a pipeline
	for _, want := range []string{"place_reserve", "rate_take", "session_create", "redis.pipeline session_check"} {
		if got := s.names(); !slices.Contains(got, want) {
			t.Errorf("there is no span %s among %q", want, got)
		}
	}
	caller := trace.SpanContextFromContext(ctx)
	for _, span := range s.spans.Ended() {
		if connects(span) {
			continue
		}
		if span.Parent().SpanID() != caller.SpanID() || span.SpanKind() != trace.SpanKindClient {
			t.Errorf("%s is a %v under %v", span.Name(), span.SpanKind(), span.Parent())
		}
	}
	text := fmt.Sprintf("%+v", tracetest.SpanStubsFromReadOnlySpans(s.spans.Ended()))
	for _, secret := range []string{"hidden", session.ID.String(), "evalsha", "redis.call", "shadowcat:"} {
		if strings.Contains(text, secret) {
			t.Errorf("a span holds %q: %s", secret, text)
		}
	}
}

func TestWhatServesNobodyIsNotTraced(t *testing.T) {
	t.Parallel()
	s := newTraced(t, func(*cluster.Config) {})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Beat(t.Context(), "r/1"); err != nil {
		t.Fatal(err)
	}
	done, span := s.tracer.Start(t.Context(), "caller")
	span.End()
	if _, err := s.Stats(done); err != nil {
		t.Fatal(err)
	}
	if got := s.names(); !slices.Equal(got, []string{"caller"}) {
		t.Errorf("there are spans %q", got)
	}
}

func TestWhatAScriptRefusesIsNoErrorOfItsSpan(t *testing.T) {
	t.Parallel()
	s := newTraced(t, func(*cluster.Config) {})
	token, err := cluster.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Lease(s.under(t), cluster.LeaseCall{ID: token.ID, Digest: token.Digest(), Upstream: "u", Need: 1, Want: 1})
	if err == nil {
		t.Fatal("there is such a session")
	}
	codesOf := make(map[string]string)
	for _, span := range s.spans.Ended() {
		for _, a := range span.Attributes() {
			if a.Key == "db.response.status_code" {
				codesOf[a.Value.String()] = span.Name()
			}
		}
		if span.Status().Code == codes.Error || len(span.Events()) > 0 {
			t.Errorf("%s has status %v and events %v", span.Name(), span.Status(), span.Events())
		}
	}
	if codesOf["NOTFOUND"] != "session_lease" {
		t.Errorf("no span session_lease says NOTFOUND: %v", codesOf)
	}
}

func TestAStoreThatIsAwayIsAnErrorOfTheSpan(t *testing.T) {
	t.Parallel()
	s := newTraced(t, func(c *cluster.Config) { c.StoreTimeout = 100 * time.Millisecond })
	ctx, cancel := context.WithCancel(s.under(t))
	cancel()
	if _, err := s.Get(ctx, cluster.ID{1}); err == nil {
		t.Fatal("there was an answer")
	}
	for _, span := range s.spans.Ended() {
		if span.Name() == "session_get" && span.Status().Code == codes.Error && slices.Contains(span.Attributes(), attribute.String("error.type", "canceled")) {
			return
		}
	}
	t.Errorf("no span session_get says so: %+v", tracetest.SpanStubsFromReadOnlySpans(s.spans.Ended()))
}

func TestASessionThatMakesRoomIsASpanOfTheOneThatTakesIt(t *testing.T) {
	t.Parallel()
	s := newTraced(t, func(c *cluster.Config) { c.MaxSessions, c.EvictMinIdle = 1, 0 })
	first := s.create(s.under(t), t)
	ctx := s.under(t)
	s.create(ctx, t)
	for _, span := range s.spans.Ended() {
		if span.Name() != "evict session" {
			continue
		}
		if span.Parent().SpanID() != trace.SpanContextFromContext(ctx).SpanID() || !slices.Contains(span.Attributes(), attribute.String("mcp.session.id", first.ID.String())) {
			t.Errorf("it is under %v: %v", span.Parent(), span.Attributes())
		}
		return
	}
	t.Errorf("there is no such span: %q", s.names())
}
