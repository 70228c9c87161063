// Package tracing sends spans to where OpenTelemetry's standard environment variables say, as OTLP over HTTP. Without those it does
// nothing. docs/observability.md lists what is understood.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// FlushTimeout is how long Close tries to send the last spans.
const FlushTimeout = 2 * time.Second

// Service is who spans are from. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over it.
type Service struct {
	Version  string
	Instance string // the replica's id
}

// Tracing sends spans in the background: up to OTEL_BSP_MAX_QUEUE_SIZE (2048) wait, more are dropped, and nobody waits for them. Nil
// sends none.
type Tracing struct {
	provider *sdktrace.TracerProvider
	log      *slog.Logger
}

// Start returns what sends spans, nil when the environment does not ask for it. It does not connect. The error says which variable
// cannot be followed. Where others are set, but neither OTEL_TRACES_EXPORTER nor OTEL_SDK_DISABLED says what is wanted, log is told
// how to turn traces on. The caller closes what it gets. That spans are lost goes to log, for the whole process; what else OpenTelemetry
// would log does not, because it quotes what is set.
func Start(ctx context.Context, service Service, log *slog.Logger) (*Tracing, error) {
	wanted, err := checkEnvironment()
	if names := unheeded(); err == nil && !wanted && len(names) > 0 {
		log.Info("no traces are sent, although variables of OpenTelemetry are set: OTEL_TRACES_EXPORTER=otlp turns them on, none silences this line",
			"variables", names)
	}
	if err != nil || !wanted {
		return nil, err
	}
	log = log.With("collector", collectorHost())
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(&complaints{log: log})
	of, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(
			semconv.ServiceName("shadowcat-cluster"), semconv.ServiceVersion(service.Version), semconv.ServiceInstanceID(service.Instance),
		),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_*: %w", err)
	}
	return &Tracing{provider: sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(of)), log: log}, nil
}

// Provider is where spans begin, nil when there are none.
func (t *Tracing) Provider() trace.TracerProvider {
	if t == nil {
		return nil
	}
	return t.provider
}

// Close sends the spans that wait, for at most [FlushTimeout]. Later ones are dropped.
func (t *Tracing) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), FlushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("the last spans could not be sent", "error", reason(err))
	}
}
