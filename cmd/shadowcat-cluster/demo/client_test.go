package demo

import (
	"context"
	"net/http"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// connect opens a session with the official SDK's client and closes it when the test ends.
func connect(t *testing.T, endpoint string, options *mcp.ClientOptions) *mcp.ClientSession {
	t.Helper()
	transport := &http.Transport{}
	client := mcp.NewClient(&mcp.Implementation{Name: "demo-test", Version: "1"}, options)
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint: endpoint, HTTPClient: &http.Client{Transport: transport}, MaxRetries: -1,
	}, nil)
	if err != nil {
		t.Fatalf("connecting to %s: %v", endpoint, err)
	}
	t.Cleanup(func() {
		_ = session.Close()
		transport.CloseIdleConnections()
	})
	return session
}

// call calls a tool and returns its text; a protocol error fails the test.
func call(ctx context.Context, t *testing.T, session *mcp.ClientSession, params *mcp.CallToolParams) (string, *mcp.CallToolResult) {
	t.Helper()
	result, err := session.CallTool(ctx, params)
	if err != nil {
		t.Fatalf("calling %s: %v", params.Name, err)
	}
	if len(result.Content) == 0 {
		t.Fatalf("calling %s: no content", params.Name)
	}
	content, isText := result.Content[0].(*mcp.TextContent)
	if !isText {
		t.Fatalf("calling %s: content is %T, want text", params.Name, result.Content[0])
	}
	return content.Text, result
}

// count calls the counter and returns what it says.
func count(t *testing.T, session *mcp.ClientSession) int {
	t.Helper()
	_, result := call(t.Context(), t, session, &mcp.CallToolParams{Name: "counter"})
	output, isObject := result.StructuredContent.(map[string]any)
	if !isObject {
		t.Fatalf("counter returned %T, want an object", result.StructuredContent)
	}
	value, isNumber := output["value"].(float64)
	if !isNumber {
		t.Fatalf("counter returned %v, want a number", output["value"])
	}
	return int(value)
}
