package integration_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/replica"
)

// brokenHeader marks the balancer's own answer to a request that a replica took and never answered.
const brokenHeader = "X-Balancer-Broken"

// balancer sends each request to the next replica, never twice in a row to the same while there is another. It behaves as
// balancers commonly do: it prefers replicas that said lately that they are ready, goes on to the next where a connection is
// refused, and repeats what is no POST where a connection breaks before there is an answer.
type balancer struct {
	url      string
	replicas []*replica.Replica
	ready    []atomic.Bool
	next     atomic.Uint64
	dialer   *http.Transport
	resumed  func() // called when a client goes on with a stream
}

func newBalancer(t *testing.T, replicas []*replica.Replica, resumed func()) *balancer {
	t.Helper()
	b := &balancer{
		resumed:  resumed,
		replicas: replicas,
		ready:    make([]atomic.Bool, len(replicas)),
		dialer: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, DisableKeepAlives: true, DisableCompression: true,
		},
	}
	server := httptest.NewServer(b.handler())
	b.url = server.URL
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	for i, r := range replicas {
		b.ready[i].Store(true)
		watching.Go(func() { b.watch(ctx, &b.ready[i], r.AdminURL("/readyz")) })
	}
	t.Cleanup(func() {
		stop()
		watching.Wait()
		server.CloseClientConnections()
		server.Close()
	})
	return b
}

// watch asks one replica again and again whether it is ready.
func (b *balancer) watch(ctx context.Context, ready *atomic.Bool, url string) {
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, time.Second)
		ready.Store(answersStatus(url, http.StatusOK)(look) == nil)
		cancel()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (b *balancer) handler() http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.Out.URL.Scheme, request.Out.URL.Host = "http", "replica"
			request.Out.Host = request.In.Host
		},
		Transport:     b,
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, request *http.Request, _ error) {
			if request.Context().Err() == nil {
				w.Header().Set(brokenHeader, "true")
				w.WriteHeader(http.StatusBadGateway)
			}
		},
		// Streams that break off are what the test makes.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return // the client has gone
		}
		request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		proxy.ServeHTTP(w, request)
	})
}

// RoundTrip implements http.RoundTripper.
func (b *balancer) RoundTrip(request *http.Request) (*http.Response, error) {
	var body []byte
	if request.Body != nil {
		var err error
		if body, err = io.ReadAll(request.Body); err != nil {
			return nil, err
		}
	}
	// All replicas may be starting. A GET may wait for the store at one of them after the other, each killed meanwhile: commonly balancers
	// try them all, however long each took. Half a minute is Sentinel's failover with an election that has to be repeated.
	deadline := time.Now().Add(30 * time.Second)
	for {
		attempt := request.Clone(request.Context())
		attempt.URL.Host = b.choose()
		attempt.Body, attempt.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		response, err := b.dialer.RoundTrip(attempt)
		if err == nil && response.StatusCode == http.StatusOK && request.Header.Get("Last-Event-ID") != "" {
			b.resumed()
		}
		if err == nil || request.Context().Err() != nil || time.Now().After(deadline) {
			return response, err
		}
		network, ok := errors.AsType[*net.OpError](err)
		if refused := ok && network.Op == "dial"; !refused && request.Method == http.MethodPost {
			return nil, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-request.Context().Done():
		}
	}
}

// choose returns the address of the next replica that is ready, or of the next one if none is.
func (b *balancer) choose() string {
	for range b.replicas {
		if i := int(b.next.Add(1) % uint64(len(b.replicas))); b.ready[i].Load() {
			return b.replicas[i].Address()
		}
	}
	return b.replicas[b.next.Add(1)%uint64(len(b.replicas))].Address()
}
