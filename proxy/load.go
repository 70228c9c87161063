package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// load is what this replica has in hand. It refuses what would be too much, and keeps nothing waiting: a client that is told so at once can
// try another replica, a queue would only grow.
type load struct {
	most Capacity

	mu       sync.Mutex
	requests int
	streams  int
	bytes    int64
}

// Capacity bounds what one replica has in hand at once, whosever it is. What is beyond is answered with 503.
type Capacity struct {
	// Requests is how many requests may be waiting for the header of their answer. Notifications, clients' answers and DELETE are no
	// requests: they end what others wait for. 0: any number.
	Requests int
	// Bytes is how large the bodies of requests may be together that are in memory: from the first byte that comes until the answer has
	// ended. 0: any size.
	Bytes int64
	// Streams is how many streams of events may be open to clients. At the bound GET and subscriptions/listen are refused. Answers to
	// other requests count, too, but only Requests of them beyond the bound have requests refused. 0: any number.
	Streams int
}

// InFlight is what a replica has in hand at one moment, as [Capacity] bounds it.
type InFlight struct {
	Requests int64 // that wait for the header of their answer
	Bytes    int64 // of requests' bodies in memory
}

// InFlight tells what this replica has in hand.
func (p *Proxy) InFlight() InFlight {
	p.load.mu.Lock()
	defer p.load.mu.Unlock()
	return InFlight{Requests: int64(p.load.requests), Bytes: p.load.bytes}
}

// place is what one exchange takes of its replica's capacity.
type place struct {
	requests, streams int
	bytes             int64
}

// The settings that bound the load, by the names that clients and operators know.
const (
	limitRequests = "replica_max_requests"
	limitBytes    = "replica_max_bytes"
	limitStreams  = "replica_max_streams"
)

// take takes more, or nothing and tells which limit is reached. listens says that the answer is a stream without an end.
func (l *load) take(p *place, more place, listens bool) (limit string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.most.Requests > 0 && more.requests > 0 && l.requests >= l.most.Requests:
		return limitRequests
	case l.most.Bytes > 0 && more.bytes > 0 && l.bytes+more.bytes > l.most.Bytes:
		return limitBytes
	case !l.mayStream(more, listens):
		return limitStreams
	}
	l.requests, l.streams, l.bytes = l.requests+more.requests, l.streams+more.streams, l.bytes+more.bytes
	p.requests, p.streams, p.bytes = p.requests+more.requests, p.streams+more.streams, p.bytes+more.bytes
	return ""
}

// mayStream reports whether there may be one stream more, if what is taken can become one. The caller holds l.mu.
func (l *load) mayStream(more place, listens bool) bool {
	switch {
	case l.most.Streams == 0:
		return true
	case listens:
		return l.streams < l.most.Streams
	case more.requests > 0 && l.most.Requests > 0:
		return l.streams < l.most.Streams+l.most.Requests
	default:
		return true
	}
}

// stream makes the place of a request that of a stream.
func (l *load) stream(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests, l.streams = l.requests-p.requests, l.streams+p.requests
	p.requests, p.streams = 0, p.streams+p.requests
}

// give gives a place back.
func (l *load) give(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests, l.streams, l.bytes = l.requests-p.requests, l.streams-p.streams, l.bytes-p.bytes
	*p = place{}
}

// admit takes a place for a request that is to be answered. When it returns false, the request is answered: it is refused.
func (x *exchange) admit() bool {
	if x.msg.Kind != mcp.KindRequest && x.msg.Kind != mcp.KindBatch {
		return true
	}
	return x.admitted(x.p.load.take(&x.place, place{requests: 1}, x.msg.Method == mcp.MethodListen))
}

// admitStream is admit for a client that listens.
func (x *exchange) admitStream() bool {
	return x.admitted(x.p.load.take(&x.place, place{streams: 1}, true))
}

func (x *exchange) admitted(limit string) bool {
	if limit != "" {
		x.refuse(overloaded(limit))
	}
	return limit == ""
}

// overloaded refuses what would be too much for this replica.
func overloaded(limit string) refusal {
	f := refusal{
		status: http.StatusServiceUnavailable, reason: mcp.ReasonCapacity, limit: limit,
		message: "this replica has as many requests in flight as it takes; retry", retryAfter: retryAfter,
	}
	switch limit {
	case limitBytes:
		f.message = "this replica has as many bytes of requests in memory as it takes; retry"
	case limitStreams:
		f.reason, f.message = mcp.ReasonTooManyStreams, "this replica has as many streams open as it takes; retry"
	}
	return f
}

// errOverloaded ends the reading of a body that would be too much for the replica.
var errOverloaded = errors.New("too many bytes of requests are in memory")

// weighed is a request's body that counts as it comes, not as it is announced: a client that sends nothing takes nothing.
type weighed struct {
	io.Reader
	x *exchange
}

// Read implements io.Reader.
func (w weighed) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 && w.x.p.load.take(&w.x.place, place{bytes: int64(n)}, false) != "" {
		return 0, errOverloaded
	}
	return n, err
}
