package redisstore_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// bubbleClient is a client of an embedded Redis that is reached without a network, for tests in a synctest bubble.
func bubbleClient(t *testing.T) *redis.Client {
	t.Helper()
	client, _ := bubbleServer(t)
	return client
}

// bubbleServer is the same, with the server.
func bubbleServer(t *testing.T) (*redis.Client, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	t.Cleanup(func() {
		synctest.Wait() // for clients that dial in the background
		server.Close()
	})
	client := redis.NewClient(&redis.Options{
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			conn, err := server.Dial()
			return buffer(conn), err
		},
		MaxRetries:               -1,
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { _ = client.Close() })
	return client, server
}

// buffered is a connection whose writes do not wait for their reader, as those of a socket do not. A pipe's do: a long
// pipeline and the replies to its beginning would wait for each other.
type buffered struct {
	net.Conn

	out   chan []byte
	close func() error
}

// buffer starts a goroutine that ends with the connection.
func buffer(conn net.Conn) net.Conn {
	if conn == nil {
		return nil
	}
	done := make(chan struct{})
	b := &buffered{Conn: conn, out: make(chan []byte, 1000)}
	b.close = sync.OnceValue(func() error {
		close(done)
		return conn.Close()
	})
	go func() {
		for {
			select {
			case p := <-b.out:
				if _, err := conn.Write(p); err != nil {
					_ = b.Close()
					return
				}
			case <-done:
				return
			}
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.out <- bytes.Clone(p)
	return len(p), nil
}

func (b *buffered) Close() error { return b.close() }
