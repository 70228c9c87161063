package integration_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// answerTimeout bounds one call of a client, and the wait for one notification: the upstream sends some only every 3 s.
const answerTimeout = 15 * time.Second

// client is the official SDK's client with a session, and what the server has sent it unasked.
type client struct {
	*mcp.ClientSession

	progress    chan *mcp.ProgressNotificationParams
	logs        chan *mcp.LoggingMessageParams
	updates     chan *mcp.ResourceUpdatedNotificationParams
	toolChanges chan struct{}
}

// connect opens a session at the endpoint in the given protocol revision; empty for what the client prefers.
func connect(t *testing.T, endpoint, revision string, change ...func(*mcp.StreamableClientTransport)) *client {
	t.Helper()
	c := newClient(t, endpoint, revision, change...)
	t.Cleanup(func() {
		// The test may have closed the session, or the servers may be gone by now.
		_ = c.Close()
	})
	return c
}

func newClient(t *testing.T, endpoint, revision string, change ...func(*mcp.StreamableClientTransport)) *client {
	t.Helper()
	// Buffered, so that a message nobody waits for blocks nothing.
	c := &client{
		progress:    make(chan *mcp.ProgressNotificationParams, 100),
		logs:        make(chan *mcp.LoggingMessageParams, 100),
		updates:     make(chan *mcp.ResourceUpdatedNotificationParams, 100),
		toolChanges: make(chan struct{}, 100),
	}
	sdk := mcp.NewClient(&mcp.Implementation{Name: "integration", Version: "1"}, &mcp.ClientOptions{
		CreateMessageHandler: func(_ context.Context, request *mcp.CreateMessageRequest) (*mcp.CreateMessageResult, error) {
			asked, _ := request.Params.Messages[0].Content.(*mcp.TextContent)
			return &mcp.CreateMessageResult{
				Model: "none", Role: "assistant", Content: &mcp.TextContent{Text: "you said " + asked.Text},
			}, nil
		},
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"username": "lynx"}}, nil
		},
		ProgressNotificationHandler: func(_ context.Context, request *mcp.ProgressNotificationClientRequest) {
			c.progress <- request.Params
		},
		LoggingMessageHandler: func(_ context.Context, request *mcp.LoggingMessageRequest) { c.logs <- request.Params },
		ResourceUpdatedHandler: func(_ context.Context, request *mcp.ResourceUpdatedNotificationRequest) {
			c.updates <- request.Params
		},
		ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) { c.toolChanges <- struct{}{} },
	})
	ctx, cancel := context.WithTimeout(t.Context(), answerTimeout)
	defer cancel()
	// A transport of its own, so that connections kept open end with the test.
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	streamable := &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: &http.Client{Transport: transport}}
	for _, c := range change {
		c(streamable)
	}
	session, err := sdk.Connect(ctx, streamable, &mcp.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		t.Fatalf("connect to %s: %v", endpoint, err)
	}
	c.ClientSession = session
	return c
}

// call calls a tool and returns its text.
func (c *client) call(ctx context.Context, tool string, arguments map[string]any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	result, err := c.CallTool(ctx, &mcp.CallToolParams{
		Meta: mcp.Meta{"progressToken": "token-of-" + tool}, Name: tool, Arguments: arguments,
	})
	if err != nil {
		return "", err
	}
	return text(result.Content), nil
}

// mustCall calls a tool that must answer.
func (c *client) mustCall(t *testing.T, tool string, arguments map[string]any) string {
	t.Helper()
	answer, err := c.call(t.Context(), tool, arguments)
	if err != nil {
		t.Fatalf("call %s: %v", tool, err)
	}
	return answer
}

// text joins the texts among the parts of a result.
func text(parts []mcp.Content) string {
	var texts []string
	for _, part := range parts {
		if t, ok := part.(*mcp.TextContent); ok {
			texts = append(texts, t.Text)
		}
	}
	return strings.Join(texts, "\n")
}

// receive waits for the next message in a channel.
func receive[T any](t *testing.T, what string, messages <-chan T) T {
	t.Helper()
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case message := <-messages:
		return message
	case <-timer.C:
		t.Fatalf("no %s came within %s", what, answerTimeout)
		panic("unreachable")
	}
}
