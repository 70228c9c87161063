package replica

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/proxy"
)

// waitingUpstream is an MCP server whose tools answer when they are told to.
type waitingUpstream struct {
	finish map[string]chan struct{} // by tool
	called chan string              // the tools, as they are called
}

func (u *waitingUpstream) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.Contains(string(body), `"initialize"`) {
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"u","version":"1"}}}`)
		return
	}
	format := "%s"
	for tool, finish := range u.finish {
		if !strings.Contains(string(body), tool) {
			continue
		}
		if tool == "streamed" {
			format = "data: %s\n\n"
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprintf(w, format, `{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}`)
			_ = http.NewResponseController(w).Flush()
		}
		u.called <- tool
		<-finish
	}
	_, _ = fmt.Fprintf(w, format, `{"jsonrpc":"2.0","id":2,"result":{"content":[]}}`)
}

// sessionClient sends requests of one session.
type sessionClient struct{ url, session string }

func (c *sessionClient) post(ctx context.Context, transport *http.Transport, body string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json, text/event-stream")
	if c.session != "" {
		request.Header.Set("Mcp-Session-Id", c.session)
	}
	return transport.RoundTrip(request)
}

func isListening(t *testing.T, address string) bool {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// A connection that was idle as the replica was told to stop may bring a request while it waits for other things.
func TestARequestOnAnIdleConnectionIsFinished(t *testing.T) {
	t.Parallel()

	upstream := &waitingUpstream{
		finish: map[string]chan struct{}{"streamed": make(chan struct{}), "late": make(chan struct{})}, called: make(chan string, 2),
	}
	server := httptest.NewServer(upstream)
	defer server.Close()
	target, err := url.Parse(server.URL + "/mcp")
	if err != nil {
		t.Fatal(err)
	}
	r := newReplicaWith(t, nil, func(c *Config) { c.Proxy.Upstreams = []proxy.Upstream{{URL: target}} })
	listener := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, listener, nil) }()

	client := &sessionClient{url: "http://" + listener.Addr().String() + "/mcp"}
	call := func(tool string) string {
		return `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"` + tool + `"}}`
	}
	idle, other := &http.Transport{}, &http.Transport{DisableKeepAlives: true}
	defer idle.CloseIdleConnections()
	response, err := client.post(t.Context(), idle, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",`+
		`"capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`)
	if err != nil {
		t.Fatal(err)
	}
	client.session = response.Header.Get("Mcp-Session-Id")
	_, _ = io.Copy(io.Discard, response.Body) // to have the connection idle
	response.Body.Close()

	// A client breaks off its answer, so the replica reads on for when it comes back.
	broken, breakOff := context.WithCancel(t.Context())
	if response, err = client.post(broken, other, call("streamed")); err != nil {
		t.Fatal(err)
	}
	<-upstream.called
	breakOff()
	response.Body.Close()

	stop()
	for isListening(t, listener.Addr().String()) {
		continue
	}
	<-time.After(5 * quietInterval) // it has seen that no connection is busy
	answer := make(chan error, 1)
	go func() {
		response, err := client.post(context.WithoutCancel(ctx), idle, call("late"))
		if err == nil {
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		answer <- err
	}()
	<-upstream.called
	close(upstream.finish["streamed"]) // what the replica has been waiting for
	select {
	case err := <-answer:
		t.Errorf("the request was cut off: %v", err)
		close(upstream.finish["late"])
	case <-time.After(300 * time.Millisecond):
		close(upstream.finish["late"])
		if err := <-answer; err != nil {
			t.Errorf("the request was in flight: %v", err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
