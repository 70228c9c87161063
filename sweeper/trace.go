package sweeper

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracerName is the instrumentation scope of the spans of this package.
const tracerName = "github.com/tapwire/shadowcat-cluster/sweeper"

// pass is one pass of cleanup, as a span: the calls of the store that it takes are below it. It belongs to one goroutine.
type pass struct {
	span          trace.Span
	ended, purged int
}

func (s *Sweeper) beginPass(ctx context.Context, name string) (context.Context, *pass) {
	ctx, span := s.tracer.Start(ctx, name)
	return ctx, &pass{span: span}
}

// did counts sessions that were ended and purged.
func (p *pass) did(ended, purged int) {
	p.ended += ended
	p.purged += purged
}

// end ends the pass. The text of the error is for the log.
func (p *pass) end(err error) {
	p.span.SetAttributes(attribute.Int("shadowcat.sessions.ended", p.ended), attribute.Int("shadowcat.sessions.purged", p.purged))
	if err != nil {
		kind := "failed"
		if _, isFenced := highestFence(err); isFenced {
			kind = "fenced"
		}
		p.span.SetAttributes(attribute.String("error.type", kind))
		p.span.SetStatus(codes.Error, "")
	}
	p.span.End()
}
