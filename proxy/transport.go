package proxy

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

const (
	// copyBufferSize is the piece in which answers are copied.
	copyBufferSize = 16 << 10
	// idleBufferSize is the same for streams that clients listen to.
	idleBufferSize = 1 << 10
	// idleConnBuffer is what a connection that carries such a stream has for reading and for writing; net/http has 4 KiB of each. Ten
	// thousand of them are to fit in a gigabyte.
	idleConnBuffer = 1 << 10
	// maxUpstreamHeader bounds the header of an upstream's answer.
	maxUpstreamHeader = 128 << 10
	// idleUpstreamTimeout is shorter than the keep-alive time of common servers (Node's is 5 seconds), so that a request
	// is not sent on a connection which the upstream is just closing: that would be a needless may_have_run.
	idleUpstreamTimeout = 4 * time.Second
)

// transports is the client side of the proxy for one upstream.
type transports struct {
	calls   *http.Transport
	streams *http.Transport // what servers say of their own: the answers to GET, which last and are silent most of the time
	checks  *http.Transport // whether endpoints are well; each on a connection of its own, which is what a new session needs
}

func newTransports(cfg Config, u Upstream) transports {
	calls := newTransport(cfg, u)
	streams := calls.Clone()
	streams.ReadBufferSize, streams.WriteBufferSize = idleConnBuffer, idleConnBuffer
	checks := calls.Clone()
	checks.DisableKeepAlives = true
	return transports{calls: calls, streams: streams, checks: checks}
}

// RoundTrip implements http.RoundTripper.
func (t transports) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet {
		return t.streams.RoundTrip(req)
	}
	return t.calls.RoundTrip(req)
}

// closeIdle closes connections that nothing uses.
func (t transports) closeIdle() {
	t.calls.CloseIdleConnections()
	t.streams.CloseIdleConnections()
}

// newTransport returns what carries requests to one upstream. It has no timeout for answers: a tool may take as
// long as it wants. Connections are kept by what is dialled, so those of two endpoints are never mixed.
func newTransport(cfg Config, u Upstream) *http.Transport {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    cfg.DialTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // what the client accepts is passed on, what the upstream sends too
		MaxIdleConns:           0,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        idleUpstreamTimeout,
		MaxResponseHeaderBytes: maxUpstreamHeader,
	}
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS.Clone()
		t.TLSClientConfig.ServerName = ""
	}
	if u.isNamed() {
		// What is dialled is an address, and the certificate is the name's.
		t.TLSClientConfig = cmp.Or(t.TLSClientConfig, &tls.Config{MinVersion: tls.VersionTLS12})
		t.TLSClientConfig.ServerName = u.URL.Hostname()
		// A proxy resolves names itself. An address that was found here is meant to be dialled here.
		t.Proxy = nil
	}
	return t
}
