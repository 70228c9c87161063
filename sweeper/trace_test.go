package sweeper_test

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// recordSpans has a sweeper traced.
func recordSpans(spans *tracetest.SpanRecorder) func(*sweeper.Config) {
	return func(c *sweeper.Config) {
		c.Tracing = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	}
}

// total sums up a number over the spans of a name.
func total(spans *tracetest.SpanRecorder, name string, key attribute.Key) (sum int64) {
	for _, span := range spans.Ended() {
		for _, a := range span.Attributes() {
			if span.Name() == name && a.Key == key {
				sum += a.Value.AsInt64()
			}
		}
	}
	return sum
}

func TestSweepsAreSpansThatSayWhatTheyDid(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.due(50)
		spans := tracetest.NewSpanRecorder()
		w.cleaner("a/1", recordSpans(spans)).elected()
		w.pass(slack + interval)
		if got := total(spans, "sweep", "shadowcat.sessions.ended"); got != 50 {
			t.Errorf("spans tell of %d sessions that were ended, want 50", got)
		}
		w.pass(cluster.DefaultConfig().Retention + 2*interval)
		if got := total(spans, "sweep", "shadowcat.sessions.purged"); got != 50 {
			t.Errorf("spans tell of %d sessions that were purged, want 50", got)
		}
		looks := 0
		for _, span := range spans.Ended() {
			if span.Name() == "emergency cleanup" {
				looks++
			}
			if span.Status().Code != codes.Unset || span.EndTime().Sub(span.StartTime()) > interval {
				t.Errorf("%s: %v, took %v", span.Name(), span.Status(), span.EndTime().Sub(span.StartTime()))
			}
		}
		if looks == 0 {
			t.Error("no look at the memory is a span")
		}
	})
}

func TestASweepThatFailsIsASpanWithAnError(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		spans := tracetest.NewSpanRecorder()
		c := w.cleaner("a/1", recordSpans(spans))
		c.elected()
		w.pass(slack + time.Second)
		c.gate.set(true)
		w.pass(2 * interval)
		for _, span := range spans.Ended() {
			if span.Name() == "sweep" && span.Status().Code == codes.Error {
				return
			}
		}
		t.Error("no sweep has failed")
	})
}
