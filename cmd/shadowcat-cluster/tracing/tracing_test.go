package tracing_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// environment sets the variables that say where spans go, and no others.
func environment(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range variables {
		t.Setenv(name, value)
	}
}

func start(t *testing.T, variables map[string]string) (*tracing.Tracing, *bytes.Buffer, error) {
	t.Helper()
	environment(t, variables)
	log := new(bytes.Buffer)
	spans, err := tracing.Start(t.Context(), tracing.Service{Version: "v1", Instance: "r-1"}, slog.New(slog.NewJSONHandler(log, nil)))
	return spans, log, err
}

func TestNothingIsTracedUnlessTheEnvironmentSaysSo(t *testing.T) {
	for name, variables := range map[string]map[string]string{
		"nothing":          {},
		"an endpoint only": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
		"none":             {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
		"disabled":         {"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "otlp"},
	} {
		t.Run(name, func(t *testing.T) {
			spans, log, err := start(t, variables)
			if err != nil || spans != nil || spans.Provider() != nil {
				t.Errorf("%v, %v", spans, err)
			}
			said, isForgotten := log.String(), name == "an endpoint only"
			if isForgotten != strings.Contains(said, "OTEL_TRACES_EXPORTER=otlp") || isForgotten != strings.Contains(said, `["OTEL_EXPORTER_OTLP_ENDPOINT"]`) {
				t.Errorf("the log: %s", said)
			}
			if strings.Contains(said, "127.0.0.1") {
				t.Errorf("the log tells what is set: %s", said)
			}
			spans.Close()
		})
	}
}

func TestTheMoreSpecificVariableCounts(t *testing.T) {
	spans, _, err := start(t, map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
	})
	if err != nil || spans == nil {
		t.Fatalf("%v, %v", spans, err)
	}
	spans.Close()
}

func TestSpansReachTheCollectorWithWhoTheyAreFrom(t *testing.T) {
	got := make(chan *collector.ExportTraceServiceRequest, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/traces" || r.Header.Get("Authorization") != "Bearer x" || r.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s, header %v", r.URL, r.Header)
			return
		}
		body, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		text, err := io.ReadAll(body)
		request := new(collector.ExportTraceServiceRequest)
		if err != nil || proto.Unmarshal(text, request) != nil {
			t.Errorf("the body is no request: %v", err)
		}
		got <- request
	}))
	defer server.Close()
	spans, _, err := start(t, map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": server.URL, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x",
		"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
	})
	if err != nil {
		t.Fatal(err)
	}
	_, span := spans.Provider().Tracer("t").Start(t.Context(), "work")
	span.End()
	spans.Close()
	resource := (<-got).ResourceSpans[0]
	if name := resource.ScopeSpans[0].Spans[0].Name; name != "work" {
		t.Errorf("span %q", name)
	}
	of := make(map[string]string)
	for _, a := range resource.Resource.Attributes {
		of[a.Key] = a.Value.GetStringValue()
	}
	if of["service.name"] != "mine" || of["service.instance.id"] != "r-1" || of["service.version"] != "v1" || of["deployment.environment.name"] != "test" {
		t.Errorf("resource %v", of)
	}
}

func TestACollectorThatHangsHoldsUpNobody(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent()) // what is left of the spans is given up in the end
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	spans, log, err := start(t, map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": server.URL})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	tracer := spans.Provider().Tracer("t")
	for range 10_000 { // much more than the queue takes
		_, span := tracer.Start(t.Context(), "work")
		span.End()
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("10000 spans took %v", took)
	}
	begun = time.Now()
	spans.Close()
	if took := time.Since(begun); took > 2*tracing.FlushTimeout {
		t.Errorf("closing took %v", took)
	}
	if !strings.Contains(log.String(), "the last spans could not be sent") {
		t.Errorf("the log does not say so: %s", log)
	}
}
