package proxy_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// BenchmarkHotRequest is one request of a session that its replica holds a lease of, against a bare reverse proxy before the same
// upstream, and with each request traced: compare those of a kind.
func BenchmarkHotRequest(b *testing.B) {
	const answer = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}]}}`
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Mcp-Session-Id", upstreamSession)
		switch {
		case bytes.Contains(body, []byte(`"initialize"`)):
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, initialized)
		case bytes.Contains(body, []byte(`"sse"`)):
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "event: message\ndata: "+answer+"\n\n")
			flush(w)
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, answer)
		}
	}))
	b.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	if err != nil {
		b.Fatal(err)
	}
	bare := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(pr *httputil.ProxyRequest) { pr.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	})
	b.Cleanup(bare.Close)
	spans := sdktrace.NewTracerProvider(sdktrace.WithBatcher(tracetest.NewNoopExporter()))
	b.Cleanup(func() { _ = spans.Shutdown(context.WithoutCancel(b.Context())) })
	shadowcat, traced := benchReplica(b, target, nil), benchReplica(b, target, spans)
	for _, kind := range []string{"json", "sse"} {
		for name, at := range map[string]string{"bare": bare.URL, "shadowcat": shadowcat, "traced": traced} {
			b.Run(kind+"/"+name, func(b *testing.B) { benchRequests(b, at, kind) })
		}
	}
}

func benchReplica(b *testing.B, target *url.URL, spans trace.TracerProvider) string {
	b.Helper()
	limits := cluster.DefaultConfig()
	limits.RequestRate = 0
	store, err := redisstore.Open(redisstore.EmbeddedURL, redisstore.Options{Config: limits})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	manager, err := cluster.NewManager(store, limits, cluster.Options{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := proxy.New(manager, proxy.Config{Upstreams: []proxy.Upstream{{URL: target}}, Tracing: spans})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background()) //nolint:usetesting // it ends after the benchmark, in order
	done := make(chan struct{})
	go func() { defer close(done); _ = manager.Run(ctx) }()
	server := httptest.NewServer(p)
	b.Cleanup(func() { server.Close(); p.Close(); stop(); <-done })
	return server.URL + "/mcp"
}

func benchRequests(b *testing.B, at, kind string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}}
	defer client.CloseIdleConnections()
	token := ""
	send := func(body string) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, at, bytes.NewReader([]byte(body)))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		req.Header.Set("Mcp-Session-Id", token)
		res, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			b.Fatalf("answer %d, %v", res.StatusCode, err)
		}
		_ = res.Body.Close()
		if body == initializeBody {
			token = res.Header.Get("Mcp-Session-Id")
		}
	}
	send(initializeBody)
	b.ReportAllocs()
	for b.Loop() {
		send(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + kind + `"}}`)
	}
}
