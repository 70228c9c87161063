package main

import (
	"context"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// ticker sends numbered messages to sessions, unasked.
type ticker struct {
	process string

	mu       sync.Mutex
	sessions map[*mcp.ServerSession]int // by number of the last message
}

func newTicker(process string) *ticker {
	return &ticker{process: process, sessions: make(map[*mcp.ServerSession]int)}
}

// tick is the data of one message.
type tick struct {
	// Source is the session here that sent it: another one begins at 1 again.
	Source string `json:"source"`
	// Number is one more than that of the message before.
	Number int `json:"number"`
}

// watch sees sessions set their log level: from then on there is somebody to send to.
func (t *ticker) watch(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
		result, err := next(ctx, method, request)
		session, ok := request.GetSession().(*mcp.ServerSession)
		if method == "logging/setLevel" && err == nil && ok {
			t.mu.Lock()
			if _, known := t.sessions[session]; !known {
				t.sessions[session] = 0
			}
			t.mu.Unlock()
		}
		return result, err
	}
}

// run sends until ctx is done.
func (t *ticker) run(ctx context.Context, interval time.Duration) {
	clock := time.NewTicker(interval)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			t.send(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (t *ticker) send(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for session, last := range t.sessions {
		t.sessions[session] = last + 1
		// An error is no end: where streams can be resumed, it waits for whoever comes.
		_ = session.Log(ctx, &mcp.LoggingMessageParams{
			Level: "info", Logger: "ticks", Data: tick{Source: t.process + "/" + session.ID(), Number: last + 1},
		})
	}
}
