package proxy

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// load is what this replica has in hand. It refuses what would be too much, and keeps nothing waiting: a client that is told so at once can
// try another replica, a queue would only grow.
type load struct {
	most  Capacity // of all together
	share Capacity // of one principal

	mu  sync.Mutex
	all burden
	of  map[cluster.Principal]burden // of those that have something here; nobody is not among them
}

// burden is how much is in hand.
type burden struct {
	requests int // that wait for the header of their answer, and notifications
	endings  int // messages that end what others wait for, and wait to be accepted
	streams  int
	bytes    int64
}

// Capacity bounds what one replica has in hand at once, whosever it is. What is beyond is answered with 503. With authentication one
// principal may have half of each at most, and gets 429 beyond.
type Capacity struct {
	// Requests is how many requests and notifications may be with upstreams, until the header of the answer is there; each request of a
	// batch is one. notifications/cancelled and clients' answers end what others wait for: as many of them may be there beside. DELETE
	// is not counted. 0: any number.
	Requests int
	// Bytes is how large the bodies of requests may be together that are in memory: from the first byte that comes until the answer has
	// ended. 0: any size.
	Bytes int64
	// Streams is how many streams of events may be open to clients. At the bound GET and subscriptions/listen are refused. Answers to
	// other requests count, too, until both the client's and the upstream's side have ended, but only Requests of them beyond the bound
	// have requests refused. 0: any number.
	Streams int
}

// half is what one principal may have, rounded up. A body of maxBody bytes fits.
func (c Capacity) half(maxBody int64) Capacity {
	half := Capacity{Requests: (c.Requests + 1) / 2, Bytes: (c.Bytes + 1) / 2, Streams: (c.Streams + 1) / 2}
	if half.Bytes > 0 {
		half.Bytes = max(half.Bytes, maxBody)
	}
	return half
}

// InFlight is what a replica has in hand at one moment, as [Capacity] bounds it.
type InFlight struct {
	Requests int64 // that wait for the header of their answer, and notifications
	Bytes    int64 // of requests' bodies in memory
}

// InFlight tells what this replica has in hand.
func (p *Proxy) InFlight() InFlight {
	p.load.mu.Lock()
	defer p.load.mu.Unlock()
	return InFlight{Requests: int64(p.load.all.requests), Bytes: p.load.all.bytes}
}

// place is what one exchange takes of its replica's capacity.
type place struct {
	burden

	principal cluster.Principal // fixed with the first that is taken
}

// The settings that bound the load, by the names that clients and operators know.
const (
	limitRequests = "replica_max_requests"
	limitBytes    = "replica_max_bytes"
	limitStreams  = "replica_max_streams"
)

// reached is a limit that keeps something from being taken.
type reached struct {
	limit   string // empty: none
	byShare bool   // the principal has its share of it
}

// take takes more, or nothing and tells which limit is reached. listens says that the answer is a stream without an end.
func (l *load) take(p *place, more burden, listens bool) reached {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit := l.all.beyond(l.most, more, listens); limit != "" {
		return reached{limit: limit}
	}
	if p.principal != "" {
		if limit := l.of[p.principal].beyond(l.share, more, listens); limit != "" {
			return reached{limit: limit, byShare: true}
		}
	}
	p.burden = p.plus(more)
	l.add(p.principal, more)
	return reached{}
}

// beyond tells which limit more would be beyond; empty: none.
func (t burden) beyond(most Capacity, more burden, listens bool) string {
	switch {
	case most.Requests > 0 && more.requests > 0 && t.requests+more.requests > most.Requests,
		most.Requests > 0 && more.endings > 0 && t.endings+more.endings > most.Requests:
		return limitRequests
	case most.Bytes > 0 && more.bytes > 0 && t.bytes+more.bytes > most.Bytes:
		return limitBytes
	case most.Streams > 0 && listens && t.streams >= most.Streams,
		most.Streams > 0 && more.requests > 0 && most.Requests > 0 && t.streams >= most.Streams+most.Requests:
		return limitStreams
	}
	return ""
}

func (t burden) plus(more burden) burden {
	return burden{t.requests + more.requests, t.endings + more.endings, t.streams + more.streams, t.bytes + more.bytes}
}

func (t burden) negative() burden { return burden{-t.requests, -t.endings, -t.streams, -t.bytes} }

// add counts for all and for a principal. The caller holds l.mu.
func (l *load) add(p cluster.Principal, more burden) {
	l.all = l.all.plus(more)
	if p == "" {
		return
	}
	if l.of[p] = l.of[p].plus(more); l.of[p] == (burden{}) {
		delete(l.of, p)
	}
}

// stream makes the place of a request, or of a batch of them, that of a stream.
func (l *load) stream(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.requests+p.endings == 0 {
		return
	}
	change := burden{requests: -p.requests, endings: -p.endings, streams: 1}
	p.burden = p.plus(change)
	l.add(p.principal, change)
}

// give gives a place back.
func (l *load) give(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(p.principal, p.negative())
	p.burden = burden{}
}

// shareStream takes the stream out of a place for two: the client that is sent it, and who reads it from the upstream. Each calls leave
// once; the last of them gives it back.
func (l *load) shareStream(from *place) (leave func()) {
	shared := place{burden: burden{streams: from.streams}, principal: from.principal}
	from.streams = 0
	var left atomic.Int32
	return func() {
		if left.Add(1) == 2 {
			l.give(&shared)
		}
	}
}

// admit takes a place for a message that is to be sent to an upstream. When it returns false, the request is answered: it is refused.
func (x *exchange) admit() bool {
	return x.admitted(x.p.load.take(x.placed(), x.demand(), x.msg.Method == mcp.MethodListen))
}

// demand is what the message takes until its answer begins. What ends the waiting of others must not be refused for it, or a full replica
// could stay full.
func (x *exchange) demand() burden {
	_, onlyAnswers := x.answersQuestions()
	if onlyAnswers || x.msg.Kind == mcp.KindNotification && x.msg.Method == mcp.MethodCancelled {
		return burden{endings: 1}
	}
	return burden{requests: max(x.msg.Requests, 1)}
}

// placed is the exchange's place, of the principal that is known by now.
func (x *exchange) placed() *place {
	if x.place.burden == (burden{}) {
		x.place.principal = x.identity.Principal
	}
	return &x.place
}

// admitStream is admit for a client that listens.
func (x *exchange) admitStream() bool {
	return x.admitted(x.p.load.take(x.placed(), burden{streams: 1}, true))
}

func (x *exchange) admitted(r reached) bool {
	if r.limit != "" {
		x.refuse(overloaded(r))
	}
	return r.limit == ""
}

// overloaded refuses what would be too much for this replica, or for one principal at it.
func overloaded(r reached) refusal {
	f := refusal{status: http.StatusServiceUnavailable, reason: mcp.ReasonCapacity, limit: r.limit, retryAfter: retryAfter}
	who := "this replica has"
	if r.byShare {
		f.status, f.reason, who = http.StatusTooManyRequests, mcp.ReasonTooManyPending, "this principal has at this replica"
	}
	switch r.limit {
	case limitBytes:
		f.message = who + " as many bytes of requests in memory as it may; retry"
	case limitStreams:
		f.reason, f.message = mcp.ReasonTooManyStreams, who+" as many streams open as it may; retry"
	default:
		f.message = who + " as many requests in flight as it may; retry"
	}
	return f
}

// overloadedError ends the reading of a body that would be too much for the replica.
type overloadedError struct{ reached }

func (overloadedError) Error() string { return "too many bytes of requests are in memory" }

// weighed is a request's body that counts as it comes, not as it is announced: a client that sends nothing takes nothing.
type weighed struct {
	io.Reader
	x *exchange
}

// Read implements io.Reader.
func (w weighed) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n == 0 {
		return n, err
	}
	if r := w.x.p.load.take(w.x.placed(), burden{bytes: int64(n)}, false); r.limit != "" {
		return 0, overloadedError{r}
	}
	return n, err
}
