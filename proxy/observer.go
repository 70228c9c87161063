package proxy

import (
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// RequestInfo describes one finished request. It holds nothing secret, and its strings, Session apart, have few values:
// all but Status and Duration may be labels of a metric.
type RequestInfo struct {
	Session   cluster.ID // zero when the request was not in a session that exists
	Upstream  string     // the configured name; empty for the one without, and when Path matched none
	Method    string     // GET, POST, DELETE, OPTIONS or "other"
	RPCMethod string     // an MCP method, "other", or "" when there was none
	Era       mcp.Era    // "session", "stateless" or "none"
	Status    int        // the HTTP status sent; 499 when the client left before one was
	Duration  time.Duration
	Denied    string // why authentication let nobody in: an auth.Reason, or keys_unavailable; empty when it did
}

// Observer is told of finished requests. RequestDone is called on the request's goroutine, concurrently; it must return
// at once.
type Observer interface {
	RequestDone(info RequestInfo)
}

type noObserver struct{}

func (noObserver) RequestDone(RequestInfo) {}
