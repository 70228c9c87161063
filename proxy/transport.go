package proxy

import (
	"net"
	"net/http"
	"time"
)

const (
	// copyBufferSize is the piece in which answers are copied.
	copyBufferSize = 16 << 10
	// maxUpstreamHeader bounds the header of an upstream's answer.
	maxUpstreamHeader = 128 << 10
	// idleUpstreamTimeout is shorter than the keep-alive time of common servers (Node's is 5 seconds), so that a request
	// is not sent on a connection which the upstream is just closing: that would be a needless may_have_run.
	idleUpstreamTimeout = 4 * time.Second
)

// newTransport returns the client side of the proxy. It has no timeout for answers: a tool may take as long as it wants.
func newTransport(cfg Config) *http.Transport {
	return &http.Transport{
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
}
