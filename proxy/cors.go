package proxy

import (
	"net/http"
	"slices"
	"strings"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// defaultCORSHeaders are what a page may send when its preflight names nothing usable.
const defaultCORSHeaders = "Accept, Authorization, Content-Type, Last-Event-ID, MCP-Protocol-Version, Mcp-Session-Id"

// allowCORS lets the page of an allowed origin read the answer. Without a list of origins there is no CORS: a page of the
// same origin needs none.
func (x *exchange) allowCORS(origin string) {
	allowed := x.p.policy.origins
	if len(allowed) == 0 {
		return
	}
	cors := http.Header{"Access-Control-Expose-Headers": {mcp.HeaderSessionID + ", WWW-Authenticate, " + headerRequestID}}
	if slices.Contains(allowed, "*") {
		cors.Set("Access-Control-Allow-Origin", "*")
	} else {
		cors.Set("Access-Control-Allow-Origin", origin)
		cors.Set("Vary", "Origin")
	}
	x.w.cors = cors
}

// options answers a browser's question whether a page may send a request. Its origin was checked before.
func (x *exchange) options() {
	const methods = "GET, POST, DELETE"
	if x.w.cors == nil {
		x.refuse(methodNotAllowed("POST, GET, DELETE", "OPTIONS is answered to web pages of allowed origins only; see allowed_origins"))
		return
	}
	cors := x.w.cors
	cors.Set("Access-Control-Allow-Methods", methods)
	cors.Set("Access-Control-Allow-Headers", defaultCORSHeaders)
	if asked := strings.Join(x.r.Header.Values("Access-Control-Request-Headers"), ","); asked != "" && mcp.ValidHeaderNames(asked) {
		cors.Set("Access-Control-Allow-Headers", asked)
	}
	cors.Set("Access-Control-Max-Age", "600")
	x.w.WriteHeader(http.StatusNoContent)
}

// dropCORS removes an upstream's own CORS headers: which pages may read an answer is for this proxy to say, and browsers
// refuse an answer that says it twice.
func dropCORS(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
}
