package replica

import (
	"context"
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

func TestADrainLeavesTimeForEachStep(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) time.Time { return time.Time{}.Add(d) }
	for _, c := range []struct {
		drain                 Drain
		quiet, cut, tell, end time.Duration
	}{
		{Drain{}, 0, 21500 * time.Millisecond, 22500 * time.Millisecond, 24500 * time.Millisecond},
		{Drain{Delay: 3 * time.Second, Timeout: 10 * time.Second}, 3 * time.Second, 6800 * time.Millisecond, 7800 * time.Millisecond, 9800 * time.Millisecond},
		{Drain{Timeout: time.Second}, 0, 680 * time.Millisecond, 780 * time.Millisecond, 980 * time.Millisecond},
		{Drain{Delay: time.Minute, Timeout: time.Second}, 680 * time.Millisecond, 680 * time.Millisecond, 780 * time.Millisecond, 980 * time.Millisecond},
	} {
		if got, want := c.drain.schedule(at(0)), (schedule{at(c.quiet), at(c.cut), at(c.tell), at(c.end)}); got != want {
			t.Errorf("%+v: %+v, want %+v", c.drain, got, want)
		}
	}
}

// A connection that is accepted while the replica stops is served: the server knows of it only when it has been handed over.
func TestAConnectionThatIsJustAcceptedIsServed(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer up.Close()
	target, err := url.Parse(up.URL + "/mcp")
	if err != nil {
		t.Fatal(err)
	}
	r := newReplicaWith(t, nil, func(c *Config) { c.Proxy.Upstreams = []proxy.Upstream{{URL: target}} })
	slow := &slowListener{Listener: listen(t), accepted: make(chan struct{}), goOn: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, slow, nil) }()
	answer := make(chan string, 1)
	go func() {
		conn, err := (&net.Dialer{}).DialContext(context.WithoutCancel(ctx), "tcp", slow.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer conn.Close()
		body := `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",` +
			`"io.modelcontextprotocol/clientCapabilities":{}}}}`
		request := httptest.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, "http://127.0.0.1/mcp", strings.NewReader(body))
		request.Header.Set("MCP-Protocol-Version", "2026-07-28")
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Accept", "application/json, text/event-stream")
		request.Header.Set("Mcp-Method", "tools/list")
		if err := request.Write(conn); err != nil {
			answer <- err.Error()
			return
		}
		text, _ := io.ReadAll(conn)
		answer <- string(text)
	}()
	<-slow.accepted
	stop()
	for !r.stopping.Load() { // at once: there is no delay
		<-time.After(time.Millisecond)
	}
	close(slow.goOn)
	if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 418") {
		t.Errorf("it was answered with %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// slowListener takes its time between accepting its first connection and handing it over.
type slowListener struct {
	net.Listener
	accepted, goOn chan struct{}
}

func (l *slowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		close(l.accepted)
		<-l.goOn
	}
	return conn, err
}
