// Package lossyproxy stands between clients and a Redis, and loses replies, holds requests back or takes its time,
// as a network does.
package lossyproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	chunkSize = 64 << 10
	// queued bounds the chunks that are on their way in one direction of a connection.
	queued = 256
)

// Proxy forwards connections to one server. It is safe for concurrent use.
type Proxy struct {
	target   string
	listener net.Listener
	stop     context.CancelFunc
	workers  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool // nil once closed
	delay  time.Duration
	match  []byte // the request whose reply is lost
	passed int    // how many of these are still to be answered before that
	armed  bool
	turns  int
	frozen chan struct{} // closed by Thaw; nil while everything passes
	hold   *hold         // the request to be held; nil for none

	closed chan struct{}
}

// Start begins to forward connections to the server at target, a "host:port". The caller must call Close.
func Start(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for clients of %s: %w", target, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{target: target, listener: listener, stop: stop, conns: make(map[net.Conn]bool), closed: make(chan struct{})}
	p.workers.Go(func() { p.accept(ctx) }) // ends with Close
	return p, nil
}

// Address is where clients connect, a "host:port".
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Delay makes everything that arrives from now on take so much longer, each way.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// LoseReply loses one reply: that to the request which holds the text match, after skip others that hold it. The server
// has done what was asked when the connection breaks. A pipeline counts as one request.
func (p *Proxy) LoseReply(match string, skip int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.match, p.passed, p.armed = []byte(match), skip, true
}

// Spare loses no reply from now on, and tells whether one is still waiting to be lost.
func (p *Proxy) Spare() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	armed := p.armed
	p.armed = false
	return armed
}

// Turns is how many requests have come in on all connections together, a pipeline counting as one: how often a client
// began to send after it had heard from the server, or for the first time.
func (p *Proxy) Turns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turns
}

// Close breaks all connections and ends the proxy. It may be called again.
func (p *Proxy) Close() error {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	if conns == nil {
		return nil // closed before
	}
	p.stop()
	close(p.closed)
	err := p.listener.Close()
	for conn := range conns {
		_ = conn.Close() // it may have ended by itself
	}
	p.workers.Wait()
	if err != nil {
		return fmt.Errorf("close the proxy of %s: %w", p.target, err)
	}
	return nil
}

func (p *Proxy) accept(ctx context.Context) {
	var dialer net.Dialer
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		server, err := dialer.DialContext(ctx, "tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.keep(client, server) {
			return
		}
		link := &link{proxy: p, client: client, server: server}
		p.workers.Go(func() { link.forward(server, client, link.request) }) // each ends when either connection does
		p.workers.Go(func() { link.forward(client, server, link.reply) })
	}
}

// keep remembers connections for Close. It closes them itself, and says false, when that was called already.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		if p.conns == nil {
			_ = conn.Close()
		} else {
			p.conns[conn] = true
		}
	}
	return p.conns != nil
}

// link is one client's connection.
type link struct {
	proxy          *Proxy
	client, server net.Conn

	// Under the proxy's lock:
	asking bool            // what came last came from the client
	doomed bool            // the reply to what came last is to be lost
	held   <-chan struct{} // closed when what the client sends may go on; nil when it may
}

var errLost = errors.New("the reply is lost")

// request looks at what the client sends.
func (l *link) request(chunk []byte) error {
	p := l.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if !l.asking {
		l.asking = true
		p.turns++
	}
	if p.armed && !l.doomed && bytes.Contains(chunk, p.match) {
		if p.passed--; p.passed < 0 {
			p.armed, l.doomed = false, true
		}
	}
	if p.hold != nil && bytes.Contains(chunk, p.hold.match) {
		l.held = p.hold.released
		close(p.hold.held)
		p.hold = nil
	}
	return nil
}

// reply looks at what the server sends.
func (l *link) reply([]byte) error {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	l.asking = false
	if l.doomed {
		return errLost
	}
	return nil
}

// delayed is a chunk, when it arrives, and what has to happen before.
type delayed struct {
	bytes []byte
	due   time.Time
	gates [2]<-chan struct{} // each is closed when the chunk may pass; nil for none
}

// forward moves what arrives from one side to the other, each chunk after the delay, until a connection ends or look says
// so. Then both end.
func (l *link) forward(to, from net.Conn, look func([]byte) error) {
	p := l.proxy
	chunks := make(chan delayed, queued)
	var writer sync.WaitGroup
	writer.Go(func() { // ends with the channel
		for chunk := range chunks {
			<-time.After(time.Until(chunk.due))
			p.await(chunk.gates)
			if _, err := to.Write(chunk.bytes); err != nil {
				l.end() // and the reader with it; what is left goes nowhere
			}
		}
	})
	for {
		buffer := make([]byte, chunkSize)
		n, err := from.Read(buffer)
		if err == nil {
			err = look(buffer[:n])
		}
		if err != nil {
			break
		}
		p.mu.Lock()
		chunk := delayed{buffer[:n], time.Now().Add(p.delay), [2]<-chan struct{}{p.frozen}}
		if to == l.server {
			chunk.gates[1] = l.held
		}
		p.mu.Unlock()
		chunks <- chunk
	}
	close(chunks)
	writer.Wait()
	l.end()
}

func (l *link) end() {
	p := l.proxy
	p.mu.Lock()
	delete(p.conns, l.client)
	delete(p.conns, l.server)
	p.mu.Unlock()
	_ = l.client.Close()
	_ = l.server.Close()
}
