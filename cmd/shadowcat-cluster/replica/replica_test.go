package replica

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newReplica(t *testing.T, log *slog.Logger) *Replica {
	t.Helper()
	return newReplicaWith(t, log, func(*Config) {})
}

func newReplicaWith(t *testing.T, log *slog.Logger, change func(*Config)) *Replica {
	t.Helper()
	store, err := redisstore.Open(redisstore.EmbeddedURL, redisstore.Options{Config: cluster.DefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	cfg := Config{
		ID:      "r-1",
		Store:   store,
		Cluster: cluster.DefaultConfig(),
		Proxy:   proxy.Config{Upstreams: []proxy.Upstream{{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1", Path: "/mcp"}}}},
		Logger:  log,
	}
	change(&cfg)
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// status returns the status of a GET, 0 when there is no answer.
func status(t *testing.T, url string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

func TestRunServesUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	r := newReplica(t, nil)
	listener, adminListener := listen(t), listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, listener, adminListener) }()
	deadline := time.Now().Add(10 * time.Second)
	for status(t, "http://"+adminListener.Addr().String()+"/readyz") != http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("not ready within 10 s")
		}
	}
	if got := status(t, "http://"+listener.Addr().String()+"/mcp"); got != http.StatusNotAcceptable {
		t.Errorf("GET without Accept: %d, want 406 from the proxy", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	for _, l := range []net.Listener{listener, adminListener} {
		if got := status(t, "http://"+l.Addr().String()+"/healthz"); got != 0 {
			t.Errorf("still listening: %d", got)
		}
	}
}

func TestRunNeedsNoAdminPort(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newReplica(t, nil).Run(ctx, listen(t), nil); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRunEndsAllPartsWhenOneFails(t *testing.T) {
	t.Parallel()
	broken := listen(t)
	broken.Close()
	err := newReplica(t, nil).Run(t.Context(), broken, listen(t))
	if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "proxy: ") {
		t.Errorf("Run: %v", err)
	}
}

func TestAPanicInAPartStopsTheReplicaAloud(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	r := newReplica(t, slog.New(slog.NewJSONHandler(&log, nil)))
	err := r.guarded(t.Context(), "report loop", func(context.Context) error { panic("boom") })
	if err == nil || err.Error() != "report loop: panic: boom" {
		t.Errorf("error: %v", err)
	}
	for _, want := range []string{`"part":"report loop"`, `"panic":"boom"`, `"replica":"r-1"`, "replica_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s: %s", want, log.String())
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	store, err := redisstore.Open("redis://127.0.0.1:1", redisstore.Options{Config: cluster.DefaultConfig()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	if _, err := New(Config{ID: "r", Store: store, Cluster: cluster.DefaultConfig()}); err == nil || !strings.Contains(err.Error(), "upstream") {
		t.Errorf("without upstreams: %v", err)
	}
	if _, err := New(Config{ID: "r", Store: store}); err == nil || !strings.Contains(err.Error(), "initialize_timeout") {
		t.Errorf("without limits: %v", err)
	}
}
