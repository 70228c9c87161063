package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// The load: small, so that what is measured is the scenario and not the machine. It ends with its context.
const (
	clientCount = 12
	callPause   = 250 * time.Millisecond // between the calls of one client, on average
	callLimit   = 45 * time.Second       // for one call: longer than anything that a replica may take
	progressOf  = 4                      // notifications on the way to the answer of a streamed call
)

// traffic is a number of official Go SDK clients, each with one session that it keeps for as long as it can.
type traffic struct {
	url     string
	current atomic.Pointer[tally]
	calling sync.RWMutex // held for reading by each call
	clients []*client
	stop    context.CancelFunc
	running sync.WaitGroup
}

// startTraffic opens the sessions and begins to call. The caller must call close.
func startTraffic(ctx context.Context, url string) (*traffic, error) {
	ctx, stop := context.WithCancel(ctx)
	t := &traffic{url: url, stop: stop}
	t.current.Store(newTally())
	for i := range clientCount {
		c := &client{
			name: fmt.Sprintf("client-%d", i), traffic: t,
			// Half of them keep their connections, and so their replica for a while; the others go to any with each request.
			wire: newWire(i%2 == 0),
		}
		if err := c.connect(ctx); err != nil {
			t.close()
			return nil, fmt.Errorf("%s: open a session: %w", c.name, err)
		}
		t.clients = append(t.clients, c)
	}
	for _, c := range t.clients {
		t.running.Go(func() { c.run(ctx) })
	}
	return t, nil
}

// begin starts a new tally and returns it, once the calls that had begun have ended: what one scenario broke is not another's.
func (t *traffic) begin() *tally {
	t.calling.Lock()
	defer t.calling.Unlock()
	fresh := newTally()
	t.current.Store(fresh)
	return fresh
}

// close ends the calls, then the sessions. It may be called again.
func (t *traffic) close() {
	t.stop()
	t.running.Wait()
	for _, c := range t.clients {
		_ = c.session.Close() // it may be lost
		c.wire.next.CloseIdleConnections()
	}
}

// client is one SDK client. Its session is its own goroutine's; what handlers touch is guarded.
type client struct {
	name    string
	traffic *traffic
	wire    *wire
	session *mcp.ClientSession
	closed  chan struct{} // when the SDK has given the session up

	mu     sync.Mutex
	source string // whose messages these are
	last   int    // the number of the last one
}

func (c *client) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	sdk := mcp.NewClient(&mcp.Implementation{Name: c.name, Version: "1"}, &mcp.ClientOptions{LoggingMessageHandler: c.message})
	session, err := sdk.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: c.traffic.url, HTTPClient: &http.Client{Transport: c.wire}},
		&mcp.ClientSessionOptions{ProtocolVersion: "2025-11-25"})
	if err != nil {
		return err
	}
	closed := make(chan struct{})
	// Ends with the session, which close, or its loss, ends.
	go func() {
		defer close(closed)
		_ = session.Wait() // why it was given up is told by the call that found out
	}()
	c.session, c.closed = session, closed
	return session.SetLoggingLevel(ctx, &mcp.SetLoggingLevelParams{Level: "info"})
}

// message takes in one of the numbered messages that the server sends once a second.
func (c *client) message(_ context.Context, request *mcp.LoggingMessageRequest) {
	var data struct {
		Source string `json:"source"`
		Number int    `json:"number"`
	}
	text, err := json.Marshal(request.Params.Data)
	if err != nil || json.Unmarshal(text, &data) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if data.Source != c.source {
		c.source, c.last = data.Source, 0
	}
	missed := max(0, data.Number-c.last-1)
	c.last = max(c.last, data.Number)
	c.traffic.current.Load().change(func(t *tally) {
		t.messages++
		t.missed += missed
	})
}

// run calls until ctx ends. A session that is lost is opened anew.
func (c *client) run(ctx context.Context) {
	for number := 0; ctx.Err() == nil; number++ {
		c.call(ctx, number)
		select {
		case <-c.closed:
			c.reopen(ctx)
		case <-time.After(callPause/2 + rand.N(callPause)):
		case <-ctx.Done():
		}
	}
}

func (c *client) reopen(ctx context.Context) {
	c.traffic.current.Load().change(func(t *tally) { t.lost++ })
	for ctx.Err() == nil {
		err := c.connect(ctx)
		if err == nil {
			return
		}
		// While Redis is away nobody can open a session.
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// call calls a tool and counts how it ended. A call that has begun is brought to its end.
func (c *client) call(ctx context.Context, number int) {
	c.traffic.calling.RLock()
	defer c.traffic.calling.RUnlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	defer cancel()
	nonce := fmt.Sprintf("%s-%d", c.name, number)
	tool, arguments := "add", map[string]any{"a": number, "b": 1, "nonce": nonce}
	switch number % 3 {
	case 1:
		tool, arguments = "effect", map[string]any{"nonce": nonce}
	case 2:
		tool, arguments = "count", map[string]any{"to": progressOf, "interval_ms": 50, "nonce": nonce}
	}
	counted, start := c.traffic.current.Load(), time.Now()
	result, err := c.session.CallTool(ctx, &mcp.CallToolParams{Meta: mcp.Meta{"progressToken": nonce}, Name: tool, Arguments: arguments})
	how, detail := c.outcome(nonce, result, err)
	took := time.Since(start)
	counted.request(how, fmt.Sprintf("%s %s, after %s: %s", tool, nonce, took.Round(time.Millisecond), detail), took)
}

// outcome tells how a call ended.
func (c *client) outcome(nonce string, result *mcp.CallToolResult, err error) (how, detail string) {
	said := c.wire.take(nonce)
	var answer *jsonrpc.Error
	var data struct {
		Reason string `json:"reason"`
	}
	switch {
	case err == nil && !result.IsError && strings.HasPrefix(text(result), nonce+" "):
		return endedOK, ""
	case err == nil:
		return endedFailed, "answered " + text(result)
	case said != "":
		how = said
	case errors.As(err, &answer) && json.Unmarshal(answer.Data, &data) == nil && data.Reason != "":
		how = data.Reason
	case strings.Contains(err.Error(), "request terminated without response"):
		how = endedBroken // its stream ended before there was anything to go on from
	case strings.Contains(err.Error(), "session not found"):
		how = endedSessionGone // another request of the client has found out
	}
	if !slices.Contains(slices.Concat(refusals, []string{endedMayHaveRun, endedEventsGone, endedBroken, endedSessionGone}), how) {
		how = endedFailed
	}
	return how, err.Error()
}

func text(result *mcp.CallToolResult) string {
	for _, content := range result.Content {
		if t, ok := content.(*mcp.TextContent); ok {
			return t.Text
		}
	}
	return ""
}
