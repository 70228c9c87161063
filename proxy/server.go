package proxy

import (
	"net/http"
	"time"
)

// NewServer returns an HTTP server for h that does not let slow clients hold connections: 10 seconds for a request's
// header of at most 128 KiB, two minutes between requests. It limits neither bodies nor answers, which may be streams of
// any length: that is the handler's part, and a [Proxy] does it.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    128 << 10,
	}
}
