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

// NewClient returns a client that keeps as many connections as it is used by callers at once. It waits for a server's answer to begin for three times Patience.
func NewClient(url string, callers int) *Client {
	return &Client{url: url, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers, DisableCompression: true, ResponseHeaderTimeout: 3 * Patience}}}
}

// Close closes its connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call makes a call in a session, and reads the answer.
func (c *Client) Call(ctx context.Context, session string, kind Kind) error {
	_, err := c.Post(ctx, session, kind.Body())
	return err
}

// StatusError is an answer that is no success.
type StatusError struct {
	URL    string
	Status int
	Body   string // the beginning
}

// Error tells all of it.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s answered with %d: %s", e.URL, e.Status, e.Body)
}

// send sends a request in a session. The caller must close the answer's body. An answer that is no success is a [StatusError].
func (c *Client) send(ctx context.Context, method, session, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("Mcp-Protocol-Version", mcp.Revision20251125)
	if session != "" {
		req.Header.Set("Mcp-Session-Id", session)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		return nil, &StatusError{URL: c.url, Status: res.StatusCode, Body: string(text)}
	}
	return res, nil
}

// Post sends a message in a session, reads the answer, and returns the session of that.
func (c *Client) Post(ctx context.Context, session, body string) (string, error) {
	res, err := c.send(ctx, http.MethodPost, session, body)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", c.url, err)
	}
	return res.Header.Get("Mcp-Session-Id"), nil
}

// Delete ends a session.
func (c *Client) Delete(ctx context.Context, session string) error {
	res, err := c.send(ctx, http.MethodDelete, session, "")
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// Listen holds a session's own stream open until ctx is done, or the stream ends. Neither is an error.
func (c *Client) Listen(ctx context.Context, session string) error {
	res, err := c.send(ctx, http.MethodGet, session, "")
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was to end
		}
		return err
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return res.Body.Close()
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
