package redisstore

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// connections are those of a client. A server that is lost without a word, as with its machine, leaves connections behind on
// which every call waits in vain; the client cannot tell them from good ones, and tries one after the other.
type connections struct {
	made time.Time

	mu  sync.Mutex
	all map[*connection]struct{}
}

func newConnections() *connections {
	return &connections{made: time.Now(), all: make(map[*connection]struct{})}
}

// connection knows when something last came from its server.
type connection struct {
	net.Conn

	of      *connections
	address string
	heardAt atomic.Int64 // in ns since of.made
}

// socket is a connection whose state the client can ask the system for: one without TLS.
type socket struct {
	*connection
	syscall.Conn
}

// dialer wraps a dialer so that its connections are known.
func (c *connections) dialer(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		known := &connection{Conn: conn, of: c, address: address}
		known.heardAt.Store(int64(time.Since(c.made)))
		c.mu.Lock()
		c.all[known] = struct{}{}
		c.mu.Unlock()
		if system, ok := conn.(syscall.Conn); ok {
			return socket{connection: known, Conn: system}, nil
		}
		return known, nil
	}
}

// Read notes that something came.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heardAt.Store(int64(time.Since(c.of.made)))
	}
	return n, err
}

// Close forgets the connection.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.all, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// closeSilent closes connections to an address, or to any when it is empty, on which nothing has come since a moment: their
// calls fail at once, and the next ones get new connections.
func (c *connections) closeSilent(address string, since time.Time) {
	limit := int64(since.Sub(c.made))
	var silent []*connection
	c.mu.Lock()
	for conn := range c.all {
		if (address == "" || conn.address == address) && conn.heardAt.Load() < limit {
			silent = append(silent, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range silent {
		_ = conn.Close() // nothing can be done about it
	}
}
