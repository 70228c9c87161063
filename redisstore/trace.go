package redisstore

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// tracerName is the instrumentation scope of the store's own spans. Those of its commands are the library's.
const tracerName = "github.com/tapwire/shadowcat-cluster/redisstore"

// traceCommands has a client's commands traced, by their names alone: keys and arguments hold what clients have sent.
func traceCommands(client redis.UniversalClient, provider trace.TracerProvider) error {
	return redisotel.InstrumentTracing(client,
		redisotel.WithTracerProvider(commandSpans{provider}),
		redisotel.WithDBStatement(false),
		redisotel.WithCallerEnabled(false),
	)
}

// commandSpans makes the library's spans what they should be here: parts of something that is traced, whose errors say no more than
// their kind.
type commandSpans struct{ trace.TracerProvider }

// Tracer implements trace.TracerProvider.
func (p commandSpans) Tracer(name string, options ...trace.TracerOption) trace.Tracer {
	return commandTracer{p.TracerProvider.Tracer(name, options...)}
}

type commandTracer struct{ trace.Tracer }

// Start implements trace.Tracer. Reports, probes and the election belong to no request and come every second: they are not traced.
func (t commandTracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, trace.SpanFromContext(context.Background())
	}
	ctx, span := t.Tracer.Start(ctx, name, options...)
	return ctx, commandSpan{span}
}

type commandSpan struct{ trace.Span }

// RecordError implements trace.Span. That a script refuses something is an answer, not an error; the text of an error may quote what
// was sent.
func (s commandSpan) RecordError(err error, _ ...trace.EventOption) {
	if code := replyCode(err); code != "" {
		s.SetAttributes(semconv.DBResponseStatusCode(code))
		if isStep(code) || !errors.Is(domainError(err), cluster.ErrStoreUnavailable) {
			return
		}
	}
	s.Span.SetStatus(codes.Error, "")
	s.SetAttributes(semconv.ErrorTypeKey.String(errorType(err)))
}

// SetStatus implements trace.Span. RecordError has said all.
func (commandSpan) SetStatus(codes.Code, string) {}

// replyCode is the first word of an error that the server has answered with, empty for any other error.
func replyCode(err error) string {
	if !isReply(err) {
		return ""
	}
	code, _, _ := strings.Cut(err.Error(), " ")
	if strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || len(code) > 32 {
		return "ERR"
	}
	return code
}

// isStep reports whether an answer only says how to ask again: with the script's text, or another node.
func isStep(code string) bool { return code == "NOSCRIPT" || code == "MOVED" || code == "ASK" }

// errorType says in a word why a command failed.
func errorType(err error) string {
	switch {
	case isReply(err):
		return "refused"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case isTimeout(err):
		return "timeout"
	default:
		return "connection"
	}
}

// traceEvicted leaves a span for each session that had to make room: for another one, under that one's creation, or because memory runs
// out, under the emergency cleanup. Whoever looks for a session that is gone finds what it went for.
func (s *Store) traceEvicted(ctx context.Context, ended []cluster.Session) {
	if s.tracer == nil {
		return
	}
	for _, session := range ended {
		if session.Status != cluster.StatusEvicted {
			continue
		}
		_, span := s.tracer.Start(ctx, "evict session", trace.WithAttributes(
			attribute.String("mcp.session.id", session.ID.String()), attribute.String("shadowcat.upstream", session.Upstream),
		))
		span.End()
	}
}
