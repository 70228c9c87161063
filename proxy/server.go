package proxy

import (
	"cmp"
	"net/http"
	"time"
)

// Defaults of ServerLimits.
const (
	DefaultHeaderTimeout = 10 * time.Second
	DefaultIdleTimeout   = 2 * time.Minute
	DefaultMaxHeader     = 128 << 10
)

// ServerLimits bound what a connection may ask for before its request reaches a handler.
type ServerLimits struct {
	// HeaderTimeout is how long a client may take to send a request's header. Default 10s.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection is kept without a request. Default 2m.
	IdleTimeout time.Duration
	// MaxHeader is how large a request's header may be, in bytes; net/http lets 4 KiB more pass. Default 128 KiB.
	MaxHeader int
}

// NewServer returns an HTTP server for h that does not let slow clients hold connections. It limits neither bodies nor answers, which
// may be streams of any length: that is the handler's part, and a [Proxy] does it.
func NewServer(h http.Handler, limits ServerLimits) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: cmp.Or(limits.HeaderTimeout, DefaultHeaderTimeout),
		IdleTimeout:       cmp.Or(limits.IdleTimeout, DefaultIdleTimeout),
		MaxHeaderBytes:    cmp.Or(limits.MaxHeader, DefaultMaxHeader),
	}
}
