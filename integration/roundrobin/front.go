// Package roundrobin is the simplest balancer that sessions must survive: each request goes to the next backend, whoever
// served the session before. It remembers which backend served what, so that a test can tell.
package roundrobin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"time"
)

const (
	maxBody       = 64 << 20 // a request's body is held in memory, so it is bounded
	dialTimeout   = 2 * time.Second
	headerTimeout = 10 * time.Second
)

// errNoBackend says that every backend refused the connection.
var errNoBackend = errors.New("every backend refused the connection")

// Front is a listening balancer. It dials anew for each request: one that got a connection got a living backend.
type Front struct {
	backends []string
	next     atomic.Uint64
	trace    *trace
	dialer   *http.Transport
	server   *http.Server
	address  string
	bearer   atomic.Pointer[string]
	served   chan struct{} // closed once the server has ended
}

// Start listens on a free loopback port and spreads requests over the backends, each a "host:port". The caller must call Close.
func Start(backends ...string) (*Front, error) {
	if len(backends) == 0 {
		return nil, errors.New("start round-robin front: no backends given")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start round-robin front: %w", err)
	}
	f := &Front{
		backends: backends,
		trace:    &trace{},
		dialer: &http.Transport{
			DialContext:        (&net.Dialer{Timeout: dialTimeout}).DialContext,
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
		address: listener.Addr().String(),
		served:  make(chan struct{}),
	}
	f.server = &http.Server{Handler: f.handler(), ReadHeaderTimeout: headerTimeout}
	// Ends when Close closes the server.
	go func() {
		defer close(f.served)
		if err := f.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("round-robin front stopped serving", "address", f.address, "error", err)
		}
	}()
	return f, nil
}

// SignIn has every request carry a bearer token from now on, for clients that cannot bring their own.
func (f *Front) SignIn(token string) { f.bearer.Store(&token) }

// Address is the "host:port" at which the front listens.
func (f *Front) Address() string { return f.address }

// URL is the MCP endpoint behind the front.
func (f *Front) URL() string { return "http://" + f.address + "/mcp" }

// Close stops listening, breaks off what is still streaming and returns when nothing is left.
func (f *Front) Close() error {
	err := f.server.Close()
	<-f.served
	return err
}

// handler reads each request's body whole before it forwards anything. A backend that dies while the body is on its way could
// otherwise not be replaced, and a proxy that streams a body in while the answer streams out loses requests.
func (f *Front) handler() http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.Out.URL.Scheme = "http"
			request.Out.URL.Host = f.address // RoundTrip puts the backend here
			request.Out.Host = request.In.Host
			if token := f.bearer.Load(); token != nil {
				request.Out.Header.Set("Authorization", "Bearer "+*token)
			}
		},
		Transport:     f,
		FlushInterval: -1,
		ErrorHandler:  refuse,
		// Streams that break off are what tests make; who wants to know asks Trace.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxBody))
		if err != nil {
			http.Error(w, "front: read the request's body: "+err.Error(), http.StatusBadRequest)
			return
		}
		request.Body = io.NopCloser(bytes.NewReader(body))
		request.ContentLength = int64(len(body))
		proxy.ServeHTTP(w, request)
	})
}

// RoundTrip sends the request to the next backend. One that refuses the connection is skipped, which is safe because nothing has
// been sent; any other failure is final, because the request may have been carried out.
func (f *Front) RoundTrip(request *http.Request) (*http.Response, error) {
	var body []byte
	if request.Body != nil { // ReverseProxy drops an empty one
		var err error
		if body, err = io.ReadAll(request.Body); err != nil {
			return nil, err
		}
	}
	number := f.trace.begin(request, body)
	first := f.next.Add(1) - 1
	for i := range uint64(len(f.backends)) {
		backend := int((first + i) % uint64(len(f.backends)))
		attempt := request.Clone(request.Context())
		attempt.URL.Host = f.backends[backend]
		attempt.Body = io.NopCloser(bytes.NewReader(body))
		attempt.ContentLength = int64(len(body))
		f.trace.forwarded(number, backend)
		response, err := f.dialer.RoundTrip(attempt)
		if refused(err) {
			continue
		}
		f.trace.answered(number, response)
		return response, err
	}
	f.trace.forwarded(number, NoBackend)
	return nil, errNoBackend
}

// refused tells whether no connection came about.
func refused(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "dial" && !errors.Is(err, context.Canceled)
}

// refuse answers a request that no backend answered. Without any backend the connection is closed: to the client that looks as
// a balancer without living targets does.
func refuse(w http.ResponseWriter, request *http.Request, err error) {
	if errors.Is(err, errNoBackend) {
		panic(http.ErrAbortHandler)
	}
	if request.Context().Err() != nil {
		return // the client has gone
	}
	http.Error(w, "front: the backend broke off: "+err.Error(), http.StatusBadGateway)
}
