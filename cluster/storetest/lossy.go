package storetest

import (
	"context"
	"net"
	"sync"
)

// LossyDialer dials connections whose replies can be lost: what was asked has been done when the connection breaks. It is
// made for a client that asks one thing at a time.
type LossyDialer struct {
	mu   sync.Mutex
	left int // exchanges until the one whose reply is lost; 0: none is
}

// Dial opens a connection.
func (d *LossyDialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &lossyConn{Conn: conn, dialer: d}, nil
}

// Lose lets the reply of the nth exchange from now be lost; 0: none.
func (d *LossyDialer) Lose(nth int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = nth
}

// answered counts an exchange and reports whether its reply is to be lost.
func (d *LossyDialer) answered() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		return false
	}
	d.left--
	return d.left == 0
}

// lossyConn takes all that is read after something was written for one reply.
type lossyConn struct {
	net.Conn
	dialer *LossyDialer
	mu     sync.Mutex
	asked  bool // and nothing of the reply has been read
}

func (c *lossyConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.asked = true
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *lossyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	isReply := err == nil && c.asked
	if isReply {
		c.asked = false
	}
	c.mu.Unlock()
	if isReply && c.dialer.answered() {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	return n, err
}
