package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

const (
	// validity is the default lease: how long a replica may serve a session that another one has ended.
	validity = 3 * time.Second
	// revocation is the limit of tests for that, generous for a busy machine.
	revocation = 3 * validity

	pingBody = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
)

// redisOptions are those of a store that is simply there.
var redisOptions = redisserver.Options{}

// httpClient dials anew for each request, so that nothing is left of one test in the next.
var httpClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}

// initializeBody is an initialize request of the given revision.
func initializeBody(revision string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":"init-1","method":"initialize","params":{"protocolVersion":%q,`+
		`"capabilities":{"sampling":{}},"clientInfo":{"name":"raw","version":"1"}}}`, revision)
}

// rawRequest is an HTTP request as a client may send it, or should not.
type rawRequest struct {
	method string
	url    string
	header http.Header
	body   string
}

// post is a well-formed POST in a session; token is empty outside one.
func post(url, token, body string) rawRequest {
	r := rawRequest{method: http.MethodPost, url: url, body: body, header: http.Header{
		"Content-Type": {"application/json"},
		"Accept":       {"application/json, text/event-stream"},
	}}
	if token != "" {
		r.header.Set("Mcp-Session-Id", token)
		r.header.Set("MCP-Protocol-Version", "2025-11-25")
	}
	return r
}

// stateless is a well-formed POST of revision 2026-07-28, of a method without a name.
func stateless(url, method string) rawRequest {
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",`+
		`"io.modelcontextprotocol/clientCapabilities":{}}}}`, method)
	return post(url, "", body).with("MCP-Protocol-Version", "2026-07-28").with("Mcp-Method", method)
}

// with returns the request with a header set, or removed if value is empty.
func (r rawRequest) with(name, value string) rawRequest {
	r.header = r.header.Clone()
	if r.header.Del(name); value != "" {
		r.header.Set(name, value)
	}
	return r
}

// rawAnswer is an answer, read to its end.
type rawAnswer struct {
	status int
	header http.Header
	body   string
}

// send sends the request once. It does not follow streams that stay open: only requests that are answered whole.
func (r rawRequest) send(ctx context.Context) (rawAnswer, error) {
	request, err := http.NewRequestWithContext(ctx, r.method, r.url, strings.NewReader(r.body))
	if err != nil {
		return rawAnswer{}, err
	}
	request.Header = r.header.Clone()
	response, err := httpClient.Do(request)
	if err != nil {
		return rawAnswer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return rawAnswer{}, err
	}
	return rawAnswer{status: response.StatusCode, header: response.Header, body: string(body)}, nil
}

// mustSend sends a request that must be answered, whatever the answer.
func mustSend(t *testing.T, r rawRequest) rawAnswer {
	t.Helper()
	answer, err := r.send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// reason is what the JSON-RPC error in the answer names as its cause; empty if there is none.
func (a rawAnswer) reason() string {
	var message struct {
		Error struct {
			Data struct {
				Reason string `json:"reason"`
			} `json:"data"`
		} `json:"error"`
	}
	// An answer that is no JSON has no reason.
	_ = json.Unmarshal([]byte(a.body), &message)
	return message.Error.Data.Reason
}

func (a rawAnswer) String() string {
	return fmt.Sprintf("%d %s %.300q", a.status, a.header.Get("Retry-After"), a.body)
}

// answers is satisfied once the request is answered with the given status and reason.
func answers(r rawRequest, status int, reason string) process.Probe {
	return func(ctx context.Context) error {
		answer, err := r.send(ctx)
		if err != nil {
			return err
		}
		if answer.status != status || answer.reason() != reason {
			return fmt.Errorf("%s %s: got %s, want %d with reason %q", r.method, r.url, answer, status, reason)
		}
		return nil
	}
}

// openSession initializes a session by hand and returns its token.
func openSession(t *testing.T, url, revision string) string {
	t.Helper()
	answer := mustSend(t, post(url, "", initializeBody(revision)))
	if answer.status != http.StatusOK {
		t.Fatalf("initialize at %s: got %s, want 200", url, answer)
	}
	token := answer.header.Get("Mcp-Session-Id")
	if token == "" {
		t.Fatalf("initialize at %s: the answer has no Mcp-Session-Id", url)
	}
	initialized := post(url, token, `{"jsonrpc":"2.0","method":"notifications/initialized"}`).with("MCP-Protocol-Version", revision)
	if answer := mustSend(t, initialized); answer.status != http.StatusAccepted {
		t.Fatalf("notifications/initialized at %s: got %s, want 202", url, answer)
	}
	return token
}
