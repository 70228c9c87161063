package sweeper_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
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

// fullServer is a hook of the client that has the server say that its memory runs out.
type fullServer struct{}

func (fullServer) DialHook(next redis.DialHook) redis.DialHook { return next }

func (fullServer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		info, isString := cmd.(*redis.StringCmd)
		if cmd.Name() != "info" || !isString {
			return next(ctx, cmd)
		}
		info.SetVal("used_memory:95\r\nmaxmemory:100\r\n")
		return nil
	}
}

func (fullServer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func TestEmergencyCleanupIsOneSpanThatSaysWhatWent(t *testing.T) {
	t.Parallel()
	inElectorate(t, func(t *testing.T, w *electorate) {
		w.sessions(5)
		spans := tracetest.NewSpanRecorder()
		c := w.cleaner("a/1", recordSpans(spans), func(c *sweeper.Config) { c.Store.Client().AddHook(fullServer{}) })
		c.elected()
		w.pass(slack + 2*interval)
		const name = "emergency cleanup"
		if ended, purged := total(spans, name, "shadowcat.sessions.ended"), total(spans, name, "shadowcat.sessions.purged"); ended != 5 || purged != 5 {
			t.Errorf("spans tell of %d sessions that were ended and %d that were purged, want 5 of each", ended, purged)
		}
		busy := 0
		for _, span := range spans.Ended() {
			if span.Name() == name && !slices.Contains(span.Attributes(), attribute.Int("shadowcat.sessions.purged", 0)) {
				busy++
			}
		}
		if busy != 1 {
			t.Errorf("it is %d spans, want 1", busy)
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
