package tracing_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// complaint is what the log says after a span was sent.
func complaint(t *testing.T, endpoint string) string {
	t.Helper()
	spans, log, err := start(t, map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=hunter2",
	})
	if err != nil {
		t.Fatal(err)
	}
	_, span := spans.Provider().Tracer("t").Start(t.Context(), "work")
	span.End()
	spans.Close()
	return log.String()
}

func TestTheLogTellsWhySpansAreLostWithoutKeys(t *testing.T) {
	partial, err := proto.Marshal(&collector.ExportTraceServiceResponse{
		PartialSuccess: &collector.ExportTracePartialSuccess{RejectedSpans: 1, ErrorMessage: "hunter2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for why, answer := range map[string]http.HandlerFunc{
		"the collector answers 401 Unauthorized": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no such key: "+r.Header.Get("Api-Key"), http.StatusUnauthorized)
		},
		"the collector answers 599": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(599) },
		"the collector is overloaded or away: it answers 429, 502, 503 or 504": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			http.Error(w, "hunter2", http.StatusServiceUnavailable)
		},
		"the collector closes the connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"the collector rejects some of them": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			_, _ = w.Write(partial) // a loss shows in the log
		},
		"the collector's answer is not understood": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://hunter2%zz")
			w.WriteHeader(http.StatusFound)
		},
	} {
		t.Run(why, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			log := complaint(t, server.URL+"/hunter2/v1/traces")
			if !strings.Contains(log, why) || strings.Contains(log, "hunter2") || !strings.Contains(log, `"collector":"`+server.Listener.Addr().String()) {
				t.Errorf("the log says %s", log)
			}
		})
	}
}

func TestTheLogTellsThatNoCollectorIsReached(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	if log := complaint(t, "http://"+address+"/hunter2"); !strings.Contains(log, "connection refused") || strings.Contains(log, "hunter2") {
		t.Errorf("the log says %s", log)
	}
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	if log := complaint(t, server.URL+"/hunter2"); !strings.Contains(log, "unknown authority") || strings.Contains(log, "hunter2") {
		t.Errorf("the log says %s", log)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if log := complaint(t, "https://"+plain.Listener.Addr().String()+"/hunter2"); !strings.Contains(log, "speaks HTTP, not HTTPS") {
		t.Errorf("the log says %s", log)
	}
}
