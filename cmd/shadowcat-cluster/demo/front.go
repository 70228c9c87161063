package demo

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
	"net/url"
	"sync/atomic"
	"time"
)

// bodyTimeout is how long a client may take to send a request's body.
const bodyTimeout = 30 * time.Second

// front is the least clever load balancer there is: each request, not each connection, goes to the next replica, with no
// regard to the session it belongs to. A replica that refuses the connection is passed over.
type front struct {
	proxy    *httputil.ReverseProxy
	replicas *rotation
	maxBody  int64
}

// newFront makes a front over replicas, given as host:port. maxBody is the replicas' own limit in bytes.
func newFront(replicas []string, maxBody int64, logger *slog.Logger) *front {
	rotation := &rotation{
		replicas: replicas,
		transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true, // an answer passes through as the replica wrote it
		},
	}
	return &front{
		replicas: rotation,
		maxBody:  maxBody,
		proxy: &httputil.ReverseProxy{
			Transport:     rotation,
			FlushInterval: -1, // each event of a stream goes out as it comes
			Rewrite: func(r *httputil.ProxyRequest) {
				// Host stays what the client sent: the replicas compare Origin with it.
				r.Out.URL.Scheme = "http"
				r.SetXForwarded()
			},
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				if r.Context().Err() != nil {
					panic(http.ErrAbortHandler) // nobody is there to be told
				}
				logger.Warn("no replica took the request", "error", err)
				http.Error(w, "demo: no replica took the request: "+err.Error(), http.StatusBadGateway)
			},
			ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		},
	}
}

// ServeHTTP passes a request on to the next replica, and its answer back as it comes.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := f.buffer(w, r); err != nil {
		http.Error(w, "demo: reading the request's body: "+err.Error(), http.StatusBadRequest)
		return
	}
	f.proxy.ServeHTTP(w, r)
}

// buffer reads the body whole before anything is forwarded: net/http closes the inbound body when the answer begins, which
// would break a transfer still in progress. A body over the limit is cut one byte past it, so that the refusal is the
// replica's own.
func (f *front) buffer(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	deadline := http.NewResponseController(w)
	if err := deadline.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return fmt.Errorf("limiting the time to read it: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, f.maxBody+1))
	if err != nil {
		return err
	}
	// The connection goes on to be watched for the client's going away, for as long as the answer takes.
	if err := deadline.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("lifting the limit on the time to read it: %w", err)
	}
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, err = r.GetBody()
	return err
}

// close drops the idle connections to the replicas.
func (f *front) close() { f.replicas.transport.CloseIdleConnections() }

// rotation is a transport that gives each request to the next replica in turn.
type rotation struct {
	replicas  []string // host:port
	next      atomic.Uint64
	transport *http.Transport
}

// RoundTrip sends the request to the next replica, and on to the one after it if no connection could be made: then nothing
// has been sent, so that repeating is safe. Any other error is returned, because the request may have run.
func (t *rotation) RoundTrip(r *http.Request) (*http.Response, error) {
	first := t.next.Add(1) - 1
	var errs []error
	for i := range uint64(len(t.replicas)) {
		replica := t.replicas[(first+i)%uint64(len(t.replicas))]
		attempt, err := requestTo(replica, r)
		if err != nil {
			return nil, err
		}
		answer, err := t.transport.RoundTrip(attempt)
		if err == nil {
			return answer, nil
		}
		errs = append(errs, err)
		if r.Context().Err() != nil || !dialFailed(err) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// requestTo returns a copy of r for one replica, with a body of its own.
func requestTo(replica string, r *http.Request) (*http.Request, error) {
	attempt := r.WithContext(r.Context())
	attempt.URL = &url.URL{Scheme: r.URL.Scheme, Host: replica, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	if r.GetBody == nil || r.Body == nil {
		return attempt, nil
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, fmt.Errorf("repeating the request's body: %w", err)
	}
	attempt.Body = body
	return attempt, nil
}

// dialFailed reports whether err arose before there was a connection.
func dialFailed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && !errors.Is(err, context.Canceled)
}
