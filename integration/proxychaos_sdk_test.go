package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const sdkKind = "Go SDK"

// sdkChaosClient is the official Go SDK's client with one session.
type sdkChaosClient struct {
	name    string
	tally   *chaosTally
	ticks   *tickCheck
	session *mcp.ClientSession
	closed  chan struct{} // when the SDK has given the session up
	wire    *refusalWatch

	mu       sync.Mutex
	progress map[string][]chaosProgress // by progress token
}

func newSDKChaosClient(t *testing.T, tally *chaosTally, name, url string, complete bool) *sdkChaosClient {
	t.Helper()
	c := &sdkChaosClient{
		name: name, tally: tally, ticks: newTickCheck(tally, sdkKind, name, complete),
		wire: &refusalWatch{next: &http.Transport{}, refusals: make(map[string]string)}, progress: make(map[string][]chaosProgress),
	}
	sdk := mcp.NewClient(&mcp.Implementation{Name: name, Version: "1"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, request *mcp.ProgressNotificationClientRequest) {
			token := fmt.Sprint(request.Params.ProgressToken)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.progress[token] = append(c.progress[token], chaosProgress{request.Params.Message, int(request.Params.Progress)})
		},
		LoggingMessageHandler: func(_ context.Context, request *mcp.LoggingMessageRequest) {
			var data struct {
				Source string `json:"source"`
				Number int    `json:"number"`
			}
			text, _ := json.Marshal(request.Params.Data) // it came as JSON
			if err := json.Unmarshal(text, &data); err != nil {
				tally.fault("%s: was sent %s", name, text)
				return
			}
			c.ticks.tick(data.Source, data.Number)
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), answerTimeout)
	defer cancel()
	t.Cleanup(c.wire.next.CloseIdleConnections)
	session, err := sdk.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: &http.Client{Transport: c.wire}},
		&mcp.ClientSessionOptions{ProtocolVersion: "2025-11-25"})
	if err != nil {
		t.Fatal(err)
	}
	c.session, c.closed = session, make(chan struct{})
	go func() {
		_ = session.Wait()
		close(c.closed)
	}()
	t.Cleanup(func() {
		_ = session.Close() // the replicas may be gone
		<-c.closed
	})
	if err := session.SetLoggingLevel(ctx, &mcp.SetLoggingLevelParams{Level: "info"}); err != nil {
		t.Fatal(err)
	}
	tally.count(sdkKind, func(r *chaosRow) { r.clients++ })
	return c
}

func (c *sdkChaosClient) load(ctx context.Context, streams bool) {
	for number := 0; ctx.Err() == nil && !c.isClosed(); number++ {
		switch {
		case number%3 == 0:
			c.call(ctx, number, "add", map[string]any{"a": number, "b": 1})
		case number%3 == 1:
			c.call(ctx, number, "effect", map[string]any{})
		case streams:
			c.call(ctx, number, "count", map[string]any{"to": chaosCount, "interval_ms": chaosCountInterval})
		}
		select {
		case <-time.After(chaosPause):
		case <-ctx.Done():
		}
	}
}

// isClosed tells whether the SDK has given the session up.
func (c *sdkChaosClient) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// call calls a tool. A call that has begun is brought to its end.
func (c *sdkChaosClient) call(ctx context.Context, number int, tool string, arguments map[string]any) {
	nonce := fmt.Sprintf("%s-%d", c.name, number)
	arguments["nonce"] = nonce
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), chaosCallLimit)
	defer cancel()
	result, err := c.session.CallTool(ctx, &mcp.CallToolParams{Meta: mcp.Meta{"progressToken": nonce}, Name: tool, Arguments: arguments})
	end := chaosCall{kind: sdkKind, client: c.name, tool: tool, nonce: nonce}
	end.ended, end.detail = c.outcome(nonce, result, err)
	if tool == "count" && end.ended == endedOK {
		c.awaitProgress(ctx, nonce)
	}
	c.mu.Lock()
	end.progress = c.progress[nonce]
	c.mu.Unlock()
	c.tally.call(end)
}

// awaitProgress waits for notifications that the SDK has not handed over yet: it does so beside the answers.
func (c *sdkChaosClient) awaitProgress(ctx context.Context, nonce string) {
	for tries := 0; tries < 50 && ctx.Err() == nil; tries++ {
		c.mu.Lock()
		n := len(c.progress[nonce])
		c.mu.Unlock()
		if n >= chaosCount {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// outcome tells how a call ended.
func (c *sdkChaosClient) outcome(nonce string, result *mcp.CallToolResult, err error) (ended, detail string) {
	refused := c.wire.of(nonce)
	var answer *jsonrpc.Error
	var data struct {
		Reason string `json:"reason"`
	}
	switch {
	case err == nil && !result.IsError && strings.HasPrefix(text(result.Content), nonce+" "):
		return endedOK, ""
	case err == nil:
		return endedFailed, "answered " + text(result.Content)
	case refused != "":
		return refused, err.Error()
	case errors.As(err, &answer) && json.Unmarshal(answer.Data, &data) == nil && data.Reason != "":
		return data.Reason, answer.Message
	case strings.Contains(err.Error(), "request terminated without response"):
		return endedBroken, "" // before there was an event to resume from
	default:
		return endedFailed, err.Error()
	}
}

// last makes sure that the session is still there.
func (c *sdkChaosClient) last(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, chaosCallLimit)
	defer cancel()
	if err := c.session.Ping(ctx, nil); err != nil {
		return fmt.Errorf("%s: ping: %w; GET was answered with %v", c.name, err, c.wire.gets())
	}
	return nil
}

// refusalWatch notes what refused requests were refused with: the SDK keeps that to itself.
type refusalWatch struct {
	next *http.Transport

	mu       sync.Mutex
	refusals map[string]string // by nonce
	statuses []string          // of GETs that were refused
}

var (
	nonceIn  = regexp.MustCompile(`"nonce":"([^"]+)"`)
	reasonIn = regexp.MustCompile(`"reason":"([a-z_]+)"`)
)

// RoundTrip implements http.RoundTripper.
func (w *refusalWatch) RoundTrip(request *http.Request) (*http.Response, error) {
	nonce := ""
	if request.GetBody != nil {
		if body, err := request.GetBody(); err == nil {
			text, _ := io.ReadAll(body) // it is in memory
			if found := nonceIn.FindSubmatch(text); found != nil {
				nonce = string(found[1])
			}
		}
	}
	response, err := w.next.RoundTrip(request)
	if err != nil || response.StatusCode < 300 {
		return response, err
	}
	text, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(text))
	reason := fmt.Sprintf("%d %.100q", response.StatusCode, text)
	if found := reasonIn.FindSubmatch(text); found != nil {
		reason = string(found[1])
	}
	if response.Header.Get(brokenHeader) != "" || err != nil {
		reason = endedBroken
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if nonce != "" {
		w.refusals[nonce] = reason
	}
	if request.Method == http.MethodGet {
		w.statuses = append(w.statuses, reason)
	}
	return response, nil
}

func (w *refusalWatch) of(nonce string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refusals[nonce]
}

func (w *refusalWatch) gets() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.statuses
}
