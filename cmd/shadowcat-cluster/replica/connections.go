package replica

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// helloTime is how long a client that has connected may take to send a request that is served in spite of a stop.
	helloTime = time.Second
	// quietInterval is the pause between two looks at the connections of a replica that stops.
	quietInterval = 10 * time.Millisecond
)

// connections knows what the connections of a server are doing. A server's own Shutdown drops a request that it has read
// after it was told to stop, without a word; so a replica stops when there is none.
type connections struct {
	mu   sync.Mutex
	busy map[net.Conn]time.Time // with a request, or new: then since when, else zero
}

// track is the server's ConnState.
func (c *connections) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.busy[conn] = time.Now()
	case http.StateActive:
		c.busy[conn] = time.Time{}
	default:
		delete(c.busy, conn)
	}
}

// quiet reports whether no request is being served, and none can be expected.
func (c *connections) quiet(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, since := range c.busy {
		if since.IsZero() || now.Sub(since) < helloTime {
			return false
		}
	}
	return true
}

// wait waits until it is quiet, and reports whether it became so before ctx was done.
func (c *connections) wait(ctx context.Context) bool {
	tick := time.NewTicker(quietInterval)
	defer tick.Stop()
	for !c.quiet(time.Now()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
