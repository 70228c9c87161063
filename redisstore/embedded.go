package redisstore

import (
	"fmt"

	"github.com/alicebob/miniredis/v2"
)

// Embedded is a Redis work-alike inside this process, listening on a free loopback port. It is for demos and tests: one
// process, no persistence, slower than Redis.
type Embedded struct{ server *miniredis.Miniredis }

// StartEmbedded starts one. The caller closes it.
func StartEmbedded() (*Embedded, error) {
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true) // keys expire as time passes, as in Redis
	if err := server.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("starting the embedded Redis: %w", err)
	}
	return &Embedded{server: server}, nil
}

// URL is where clients, the command line among them, find it.
func (e *Embedded) URL() string { return "redis://" + e.server.Addr() }

// Close stops it; its sessions are gone.
func (e *Embedded) Close() error {
	e.server.Close()
	return nil
}
