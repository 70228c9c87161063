package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

func TestInitializeMintsATokenAndRecordsTheSession(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica()
	// A session id that comes with initialize is ignored.
	got := post(r.url, "left-over", initializeBody).send(t)
	if got.status != http.StatusOK || got.body != initialized {
		t.Fatalf("initialize: %d %s", got.status, got.body)
	}
	token, err := cluster.ParseToken(got.header.Get("Mcp-Session-Id"))
	if err != nil {
		t.Fatalf("token: %v", err)
	}
	s, err := r.manager.Get(t.Context(), token.ID)
	if err != nil {
		t.Fatal(err)
	}
	if s.Status != cluster.StatusActive || s.UpstreamSession != upstreamSession || s.Revision != "2025-11-25" ||
		s.ClientName != "test" || s.ClientVersion != "1" {
		t.Errorf("record: %+v", s)
	}
	if seen := u.requests()[0].header.Values("Mcp-Session-Id"); len(seen) != 0 {
		t.Errorf("the upstream saw the session id %q", seen)
	}
}

func TestInitializeByEventStreamKeepsEveryByte(t *testing.T) {
	t.Parallel()
	stream := ": hello\n\nid: prime-1\ndata:\n\nevent: message\nid: 2\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n" +
		"event: message\r\nid: 3\r\ndata: " + initialized + "\r\n\r\nid: 4\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n"
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if !got.msg.Initializes {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for piece := range strings.SplitSeq(stream, " ") {
			_, _ = io.WriteString(w, piece)
			if piece != "x\"}\n\n" {
				_, _ = io.WriteString(w, " ")
			}
			flush(w)
		}
		return true
	})
	r := newFleet(t, u.url).replica()
	got := post(r.url, "", initializeBody).send(t)
	if strings.TrimRight(got.body, " ") != stream {
		t.Errorf("stream:\n%q\nwant\n%q", got.body, stream)
	}
	// The upstream gave no session id; the client has a token nevertheless, and the upstream never hears of one.
	token := got.header.Get("Mcp-Session-Id")
	if got := post(r.url, token, pingBody).send(t); got.status != http.StatusOK {
		t.Errorf("ping: %d %s", got.status, got.body)
	}
	for _, seen := range u.requests() {
		if seen.header.Get("Mcp-Session-Id") != "" {
			t.Errorf("the upstream saw a session id it did not give: %v", seen.header)
		}
	}
	if got := del(r.url, token).send(t); got.status != http.StatusNoContent || u.ended() != 0 {
		t.Errorf("DELETE: %d, %d at the upstream, which has no session", got.status, u.ended())
	}
}

// brokenAnswer is an answer to initialize that makes no session.
type brokenAnswer struct {
	name   string
	handle http.HandlerFunc
	status int
	body   string // "" means a refusal with reason upstream_unavailable
	ends   int    // DELETEs that the upstream gets
}

func brokenAnswers() []brokenAnswer {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	json := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Mcp-Session-Id", upstreamSession)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	sse := func(text string, then http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Mcp-Session-Id", upstreamSession)
			_, _ = io.WriteString(w, text)
			flush(w)
			then(w, r)
		}
	}
	nothing := func(http.ResponseWriter, *http.Request) {}
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n"); err != nil {
				return
			}
		}
	}
	rpcError := `{"jsonrpc":"2.0","id":"init","error":{"code":-32602,"message":"no"}}`
	return []brokenAnswer{
		{"JSON-RPC error", json(200, rpcError), 200, rpcError, 1},
		{"JSON-RPC error without id", json(200, `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}`), 200, `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}`, 1},
		{"error by event stream", sse("data: "+rpcError+"\n\n", nothing), 200, "data: " + rpcError + "\n\n", 1},
		{"HTTP error", json(500, "oops"), 500, "oops", 1},
		{"unauthorized", json(401, "who?"), 401, "who?", 1},
		{"no JSON", json(200, "oops"), 503, "", 1},
		{"another id", json(200, strings.Replace(initialized, `"init"`, `"other"`, 1)), 503, "", 1},
		{"the id as another type", json(200, strings.Replace(initialized, `"init"`, `0`, 1)), 503, "", 1},
		{"no answer at all", json(202, ""), 503, "", 1},
		{"huge answer", json(200, `{"x":"`+strings.Repeat("x", 100_000)+`"}`), 503, "", 1},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>")
		}, 503, "", 0},
		{"stream that ends", sse(": nothing\n\n", nothing), 503, "", 1},
		{"stream of rubbish", sse("data: rubbish\n\n", hang), 503, "", 1},
		{"endless stream", sse("", endless), 503, "", 1},
		{"huge event", sse("data: "+strings.Repeat("x", 100_000), hang), 503, "", 1},
		{"silent stream", sse(": wait\n\n", hang), 503, "", 1},
		{"no response", hang, 503, "", 0},
		{"redirect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere?secret=1")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, 503, "", 0},
		{"session id with a space", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Mcp-Session-Id", "a b")
			_, _ = io.WriteString(w, initialized)
		}, 503, "", 0},
		{"two session ids", func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Mcp-Session-Id"] = []string{"a", "b"}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, initialized)
		}, 503, "", 0},
		{"huge session id", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Mcp-Session-Id", strings.Repeat("x", 2000))
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, initialized)
		}, 503, "", 0},
	}
}

func TestInitializeThatFailsLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for _, tt := range brokenAnswers() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
				if got.msg.Initializes {
					tt.handle(w, r)
				}
				return got.msg.Initializes
			})
			r := newFleet(t, u.url).replica(func(c *proxy.Config) {
				c.MaxBody = 64 << 10
				c.InitializeTimeout = time.Second
			})
			got := post(r.url, "", initializeBody).send(t)
			if got.status != tt.status {
				t.Errorf("status %d, want %d: %s", got.status, tt.status, got.body)
			}
			if tt.body != "" && got.body != tt.body {
				t.Errorf("body %q, want the upstream's %q", got.body, tt.body)
			}
			if p := got.problem(); tt.body == "" && (p.Error.Data.Reason != "upstream_unavailable" || string(p.ID) != `"init"` || got.header.Get("Retry-After") == "") {
				t.Errorf("refusal: %v %s", got.header, got.body)
			}
			if token := got.header.Get("Mcp-Session-Id"); token != "" {
				t.Errorf("the client got the session id %q", token)
			}
			eventually(t, "the session to be failed", func() bool { return r.live() == 0 })
			eventually(t, "the upstream's session to be ended", func() bool { return u.ended() == tt.ends })
		})
	}
}

func TestInitializeStreamEndsInTimeWhenTheUpstreamKeepsItOpen(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if !got.msg.Initializes {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: "+initialized+"\n\n")
		flush(w)
		<-r.Context().Done()
		return true
	})
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.InitializeTimeout = time.Second })
	got := post(r.url, "", initializeBody).send(t)
	if got.err != nil || got.body != "data: "+initialized+"\n\n" {
		t.Errorf("stream: %q, %v; want the answer and a proper end", got.body, got.err)
	}
	if status := r.status(got.header.Get("Mcp-Session-Id")); status != cluster.StatusActive {
		t.Errorf("the session is %s", status)
	}
}

func TestInitializeIsUndoneWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	u := newUpstream(t, func(_ http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Initializes {
			close(arrived)
			<-r.Context().Done()
		}
		return got.msg.Initializes
	})
	r := newFleet(t, u.url).replica()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, r.url, strings.NewReader(initializeBody))
		req.Header = post("", "", "").header
		if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	receive(t, "initialize to reach the upstream", arrived)
	leave()
	<-gone
	eventually(t, "the request to be counted", func() bool { return len(r.requests()) == 1 })
	if got := r.requests()[0]; got.Status != 499 {
		t.Errorf("status %d, want 499", got.Status)
	}
	if live := r.live(); live != 0 {
		t.Errorf("%d live sessions are left", live)
	}
}

// slowActivation is a Manager that activates a session only after the client has left.
type slowActivation struct{ *cluster.Manager }

func (s slowActivation) Activate(ctx context.Context, session cluster.Session, a cluster.Activation) (cluster.Session, error) {
	<-ctx.Done()
	return s.Manager.Activate(context.WithoutCancel(ctx), session, a)
}

func TestInitializeIsUndoneWhenTheAnswerComesTooLate(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica()
	target, err := url.Parse(u.url)
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(slowActivation{r.manager}, proxy.Config{
		Upstreams: []proxy.Upstream{{URL: target}}, InitializeTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got := post(newServer(t, p)+"/mcp", "", initializeBody).send(t)
	if got.status != 503 || got.header.Get("Mcp-Session-Id") != "" {
		t.Errorf("too late: %d %v", got.status, got.header)
	}
	eventually(t, "both sessions to be ended", func() bool { return r.live() == 0 && u.ended() == 1 })
}

func TestInitializeIsRefusedAtTheCap(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url, func(c *cluster.Config) { c.MaxSessions = 1 }).replica()
	r.openSession()
	got := post(r.url, "", initializeBody).send(t)
	p := got.problem()
	if got.status != 503 || p.Error.Code != 1503 || p.Error.Data.Reason != "capacity" || p.Error.Data.Limit != "max_sessions" ||
		p.Error.Data.RetryAfterMS < 1 || got.header.Get("Retry-After") == "" || string(p.ID) != `"init"` {
		t.Errorf("at the cap: %d %v %s", got.status, got.header, got.body)
	}
	if n := len(u.requests()); n != 1 {
		t.Errorf("the upstream got %d requests, want 1", n)
	}
}

func TestInitializeWithoutStoreIs503(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	f := newFleet(t, u.url)
	r := f.replica()
	token := r.openSession()
	_ = f.embedded.Close()
	got := post(r.url, "", initializeBody).send(t)
	if p := got.problem(); got.status != 503 || p.Error.Data.Reason != "store_unavailable" || got.header.Get("Retry-After") == "" ||
		strings.Contains(p.Error.Message, "keep") {
		t.Errorf("initialize: %d %s", got.status, got.body)
	}
	for _, q := range []request{post(r.url, token, pingBody), get(r.url, token), del(r.url, token)} {
		eventually(t, q.method+" to be 503", func() bool { return q.send(t).status == 503 })
	}
	if u.ended() != 0 {
		t.Error("the upstream's session was ended although the store could not be asked")
	}
}

func TestUpstreamThatCannotBeReached(t *testing.T) {
	t.Parallel()
	r := newFleet(t, deadAddress(t)).replica()
	got := post(r.url, "", initializeBody).send(t)
	if p := got.problem(); got.status != 503 || p.Error.Data.Reason != "upstream_unavailable" || got.header.Get("Retry-After") != "1" {
		t.Errorf("initialize: %d %s", got.status, got.body)
	}
	if r.live() != 0 {
		t.Error("a session is left")
	}
}

// An upstream that takes a request and then hangs up may have run it; one that was never reached has not.
func TestLostConnectionTellsWhetherTheRequestMayHaveRun(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return false
		}
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return true
	})
	r := newFleet(t, u.url).replica()
	token := r.openSession()
	got := post(r.url, token, `{"jsonrpc":"2.0","id":"7","method":"tools/call"}`).send(t)
	p := got.problem()
	if got.status != 503 || p.Error.Data.Reason != "may_have_run" || string(p.ID) != `"7"` || got.header.Get("Retry-After") != "" {
		t.Errorf("lost connection: %d %v %s", got.status, got.header, got.body)
	}
}

func ExampleNew() {
	server := httptest.NewServer(http.NotFoundHandler()) // stands for an MCP server
	defer server.Close()
	_, err := proxy.New(nil, proxy.Config{})
	fmt.Println(err)
	// Output: proxy: upstream: none is configured, at least one is needed
}
