package proxy

import (
	"net/http"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// maxIgnoredBody is how much of a body is read, and thrown away, where none belongs.
const maxIgnoredBody = 64 << 10

// get serves a GET: the client opens a stream of what the server has to say of its own, or resumes one by Last-Event-ID,
// which is passed on.
func (x *exchange) get() {
	if !x.checkBodyless("GET") {
		return
	}
	if _, eventStream := mcp.Accepts(x.r.Header); !eventStream {
		x.refuse(refusal{status: http.StatusNotAcceptable, message: "Accept must list text/event-stream"})
		return
	}
	lease, ok := x.lease(cluster.Use{Stream: true})
	if !ok {
		return
	}
	defer lease.Release()
	x.forwardLeased(lease)
}

// checkBodyless checks what GET and DELETE have in common. When it returns false, the request is answered.
func (x *exchange) checkBodyless(method string) bool {
	switch x.eraOfHeader() {
	case mcp.EraStateless:
		x.refuse(methodNotAllowed("POST", "protocol revision "+mcp.Revision20260728+" and later have no "+method))
		return false
	case mcp.EraUnknown:
		x.refuse(unsupportedVersion())
		return false
	}
	return x.ignoreBody()
}

// ignoreBody reads a body that has no meaning. A little of one is harmless, and unread it would keep net/http from noticing
// that the client left.
func (x *exchange) ignoreBody() bool {
	if x.r.ContentLength == 0 {
		return true
	}
	ok := x.readBodyUpTo(min(maxIgnoredBody, x.p.cfg.MaxBody))
	x.body = nil
	return ok
}
