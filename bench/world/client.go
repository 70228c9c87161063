package world

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// Initialize is a usual message: what the official Inspector sends, and a few capabilities more.
const Initialize = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":` +
	`{"sampling":{},"elicitation":{},"roots":{"listChanged":true}},"clientInfo":{"name":"mcp-inspector","version":"0.17.2"}}}`

// Client sends messages to one server.
type Client struct {
	url  string
	http *http.Client
}

// NewClient returns a client that keeps as many connections as it is used by callers at once.
func NewClient(url string, callers int) *Client {
	return &Client{url: url, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers, DisableCompression: true}}}
}

// Close closes its connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call makes a call in a session, and reads the answer.
func (c *Client) Call(ctx context.Context, session string, kind Kind) error {
	_, err := c.Post(ctx, session, kind.Body())
	return err
}

// Post sends a message in a session, reads the answer, and returns the session of that.
func (c *Client) Post(ctx context.Context, session, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("Mcp-Protocol-Version", mcp.Revision20251125)
	if session != "" {
		req.Header.Set("Mcp-Session-Id", session)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", c.url, err)
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered with %d: %.200s", c.url, res.StatusCode, answer)
	}
	return res.Header.Get("Mcp-Session-Id"), nil
}

// Open opens n sessions.
func (c *Client) Open(ctx context.Context, n int) ([]string, error) {
	sessions := make([]string, n)
	for i := range sessions {
		var err error
		if sessions[i], err = c.Post(ctx, "", Initialize); err != nil {
			return nil, err
		}
	}
	return sessions, nil
}
