package proxy

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"github.com/tapwire/shadowcat-cluster/mcp"
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
	// MaxHeader is how large a request's header may be, in bytes. Up to twice as much reaches the handler, for it to say what is
	// wrong, as a [Proxy] does with the same Config.MaxHeader; beyond that net/http itself answers, with nothing but 431.
	// Default 128 KiB.
	MaxHeader int
}

// NewServer returns an HTTP server for h that does not let slow clients hold connections. It limits neither bodies nor answers, which
// may be streams of any length: that is the handler's part, and a [Proxy] does it.
func NewServer(h http.Handler, limits ServerLimits) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: cmp.Or(limits.HeaderTimeout, DefaultHeaderTimeout),
		IdleTimeout:       cmp.Or(limits.IdleTimeout, DefaultIdleTimeout),
		MaxHeaderBytes:    2 * cmp.Or(limits.MaxHeader, DefaultMaxHeader),
	}
}

// headerSize is how many bytes a request's header has on the wire, as far as can be told: white space beyond what is usual, and what
// net/http has taken out for itself, are not counted.
func headerSize(r *http.Request) int {
	const line = len(": \r\n")
	size := len(r.Method) + len(r.RequestURI) + len(r.Proto) + line + len("Host") + len(r.Host) + line
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value) + line
		}
	}
	return size
}

// checkHeader refuses a request whose header is too large. When it returns false, the request is answered.
func (x *exchange) checkHeader() bool {
	if headerSize(x.r) <= x.p.cfg.MaxHeader {
		return true
	}
	x.w.Header().Set("Connection", "close")
	x.refuse(refusal{
		status:  http.StatusRequestHeaderFieldsTooLarge,
		reason:  mcp.ReasonHeaderTooLarge,
		limit:   "max_header",
		message: fmt.Sprintf("the request's header is over %d bytes", x.p.cfg.MaxHeader),
	})
	return false
}
