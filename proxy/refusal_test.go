package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// refusalCase is a request and how it is refused.
type refusalCase struct {
	name       string
	request    request
	status     int
	code       int
	reason, id string
}

const pingID, noID = "1", ""

// badTokens are requests that name no session of theirs. token is of a live session, otherSecret of another one, ended
// of none any more.
func badTokens(url, token, otherSecret, ended string) []refusalCase {
	id, secret, _ := strings.Cut(token, ".")
	with := func(token string) request { return post(url, token, pingBody) }
	return []refusalCase{
		{"no token", with(""), 400, 1400, "session_required", pingID},
		{"malformed token", with("nonsense"), 404, 1404, "session_not_found", noID},
		{"wrong secret", with(id + "." + otherSecret), 404, 1404, "session_not_found", noID},
		{"no secret", with(id + "."), 404, 1404, "session_not_found", noID},
		{"capitals", with(strings.ToUpper(id) + "." + secret), 404, 1404, "session_not_found", noID},
		{"braces", with("{" + token[1:len(token)-1] + "}"), 404, 1404, "session_not_found", noID},
		{"globs", with(strings.Repeat("*", len(token))), 404, 1404, "session_not_found", noID},
		{"escaped line break", with(token + `\r\nX: y`), 404, 1404, "session_not_found", noID},
		{"64 KiB", with(strings.Repeat("a", 64<<10)), 404, 1404, "session_not_found", noID},
		{"ended session", with(ended), 404, 1404, "session_not_found", noID},
		{"session of another upstream", post(strings.Replace(url, "/mcp", "/other/mcp", 1), token, pingBody), 404, 1404, "session_not_found", noID},
		{"GET with a foreign token", get(url, id+"."+otherSecret), 404, 1404, "session_not_found", noID},
		{"DELETE with a foreign token", del(url, id+"."+otherSecret), 404, 1404, "session_not_found", noID},
		{"GET without a token", get(url, ""), 400, 1400, "session_required", noID},
		{"DELETE without a token", del(url, ""), 400, 1400, "session_required", noID},
		{"answer without a token", post(url, "", `{"jsonrpc":"2.0","id":9,"result":{}}`), 400, 1400, "session_required", noID},
	}
}

// badMessages are requests of a live session that break another rule.
func badMessages(url, token string) []refusalCase {
	ping := post(url, token, pingBody)
	says := func(body string) request { return post(url, token, body) }
	sized := func(n int) request {
		return says(`{"jsonrpc":"2.0","id":1,"method":"ping","x":"` + strings.Repeat("x", n) + `"}`)
	}
	return []refusalCase{
		{"no Content-Type", ping.with("Content-Type", ""), 415, 1415, "", noID},
		{"wrong Content-Type", ping.with("Content-Type", "text/plain"), 415, 1415, "", noID},
		{"no Accept", ping.with("Accept", ""), 406, 1406, "", noID},
		{"half an Accept", ping.with("Accept", "application/json"), 406, 1406, "", noID},
		{"GET that takes JSON only", get(url, token).with("Accept", "application/json"), 406, 1406, "", noID},
		{"empty body", says(""), 400, -32700, "", noID},
		{"invalid JSON", says(`{"jsonrpc":`), 400, -32700, "", noID},
		{"garbage after it", says(pingBody + "x"), 400, -32700, "", noID},
		{"invalid UTF-8", says("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}"), 400, -32700, "", noID},
		{"deep nesting", says(strings.Repeat("[", 10_000)), 400, -32700, "", noID},
		{"not JSON-RPC", says(`{"id":5}`), 400, -32600, "", "5"},
		{"method twice", says(`{"jsonrpc":"2.0","id":"x","method":"ping","method":"tools/call"}`), 400, -32600, "", `"x"`},
		{"batch in a revision without", says("[" + pingBody + "]"), 400, -32600, "", noID},
		{"initialize in a batch", post(url, "", "["+initializeBody+"]"), 400, -32600, "", noID},
		{"initialize without id", post(url, "", `{"jsonrpc":"2.0","method":"initialize"}`), 400, -32600, "", noID},
		{"initialize without params", post(url, "", `{"jsonrpc":"2.0","id":7,"method":"initialize"}`), 400, -32602, "", "7"},
		{"initialize with params that are no object", post(url, "", `{"jsonrpc":"2.0","id":7,"method":"initialize","params":["2025-11-25"]}`), 400, -32602, "", "7"},
		{"initialize without protocolVersion", post(url, "", `{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"capabilities":{}}}`), 400, -32602, "", "7"},
		{"protocolVersion that is no string", post(url, "", `{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":20251125}}`), 400, -32602, "", "7"},
		{"batch with an id twice", says("[" + pingBody + "," + pingBody + "]"), 400, -32600, "", noID},
		{"large body", sized(70 << 10), 413, 1413, "body_too_large", noID},
		{"unsupported version", ping.with("Mcp-Protocol-Version", "1999-01-01"), 400, 1400, "", pingID},
		{"version that is none", ping.with("Mcp-Protocol-Version", "banana"), 400, 1400, "", pingID},
		{"unsupported version of a GET", get(url, token).with("Mcp-Protocol-Version", "1999-01-01"), 400, 1400, "", noID},
		{"GET of the stateless era", get(url, token).with("Mcp-Protocol-Version", "2026-07-28"), 405, 1405, "", noID},
		{"DELETE of the stateless era", del(url, token).with("Mcp-Protocol-Version", "2026-07-28"), 405, 1405, "", noID},
		{"PUT", request{"PUT", url, pingBody, ping.header}, 405, 1405, "", noID},
		{"OPTIONS without CORS", request{"OPTIONS", url, "", http.Header{}}, 405, 1405, "", noID},
		{"unknown upstream", post(strings.Replace(url, "/mcp", "/nobody/mcp", 1), token, pingBody), 404, 1404, "", noID},
		{"no upstream", post(strings.Replace(url, "/mcp", "/", 1), "", initializeBody), 404, 1404, "", noID},
		{"foreign Origin", ping.with("Origin", "https://evil.example"), 403, 1403, "", noID},
		{"no Origin to speak of", ping.with("Origin", "null"), 403, 1403, "", noID},
	}
}

// What a client may get wrong: each has its status and a cause, reaches no upstream, and leaves nothing behind.
func TestBadInputIsRefused(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica(func(c *proxy.Config) {
		c.Upstreams = append(c.Upstreams, proxy.Upstream{Name: "other", URL: c.Upstreams[0].URL})
		c.MaxBody = 64 << 10
	})
	token := r.openSession()
	_, secret, _ := strings.Cut(token, ".")
	_, otherSecret, _ := strings.Cut(r.openSession(), ".")
	ended := r.openSession()
	del(r.url, ended).send(t)
	before, live := len(u.requests()), r.live()

	for _, tt := range append(badTokens(r.url, token, otherSecret, ended), badMessages(r.url, token)...) {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.request.send(t)
			p := got.problem()
			if got.status != tt.status || p.Error.Code != tt.code || p.Error.Data.Reason != tt.reason || string(p.ID) != tt.id {
				t.Errorf("got %d %s\nwant %d, code %d, reason %q, id %s", got.status, got.body, tt.status, tt.code, tt.reason, tt.id)
			}
			if p.Error.Message == "" || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("the refusal says nothing: %v %s", got.header, got.body)
			}
			if (tt.status == 405) != (got.header.Get("Allow") != "") {
				t.Errorf("status %d with Allow %q", tt.status, got.header.Get("Allow"))
			}
			if strings.Contains(got.body, secret) || strings.Contains(got.body, upstreamSession) {
				t.Errorf("the refusal tells a secret: %s", got.body)
			}
		})
	}
	if after := len(u.requests()); after != before {
		t.Errorf("the upstream got %d of these requests", after-before)
	}
	if after := r.live(); after != live {
		t.Errorf("%d live sessions, want %d as before", after, live)
	}
	if got := post(r.url, token, pingBody).send(t); got.status != 200 {
		t.Errorf("the session after all that: %d", got.status)
	}
}

func TestForeignTokensGetTheSameAnswerByteForByte(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url).replica()
	token := r.openSession()
	id, _, _ := strings.Cut(token, ".")
	unknown, err := cluster.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(unknown.Reveal(), ".")
	want := post(r.url, "malformed", pingBody).send(t)
	for _, token := range []string{unknown.Reveal(), id + "." + secret, strings.Repeat("x", cluster.TokenLen)} {
		got := post(r.url, token, pingBody).send(t)
		if got.body != want.body || got.status != want.status || !sameHeader(got.header, want.header) {
			t.Errorf("answers differ:\n%+v\n%+v", got, want)
		}
	}
}

func TestTwoTokensAreNone(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url).replica()
	token := r.openSession()
	q := post(r.url, "", pingBody)
	q.header["Mcp-Session-Id"] = []string{token, token}
	if got := q.send(t); got.status != 404 {
		t.Errorf("status %d, want 404", got.status)
	}
}

func TestRequestRateIsLimited(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url, func(c *cluster.Config) { c.RequestRate, c.RequestBurst = 1, 2 }).replica()
	token := r.openSession()
	var got answer
	for range 6 {
		if got = post(r.url, token, pingBody).send(t); got.status != 200 {
			break
		}
	}
	p := got.problem()
	if got.status != 429 || p.Error.Code != 1429 || p.Error.Data.Reason != "rate_limited" || p.Error.Data.Limit != "request_rate" ||
		p.Error.Data.RetryAfterMS < 1 || got.header.Get("Retry-After") == "" || string(p.ID) != "1" {
		t.Errorf("over the rate: %d %v %s", got.status, got.header, got.body)
	}
}

// Each message of a batch counts, and a batch is admitted whole or not at all.
func TestABatchCostsAsManyRequestsAsItHolds(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Initializes {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, strings.Replace(initialized, "2025-11-25", "2025-03-26", 1))
		}
		return got.msg.Initializes
	})
	r := newFleet(t, u.url, func(c *cluster.Config) { c.RequestRate, c.RequestBurst, c.MaxPending = 1, 3, 200 }).replica()
	token := r.openSessionWith(strings.Replace(initializeBody, "2025-11-25", "2025-03-26", 1))
	batch := func(size int) string {
		messages := make([]string, size)
		for i := range messages {
			messages[i] = fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"ping"}`, i)
		}
		return "[" + strings.Join(messages, ",") + "]"
	}
	before := len(u.requests())
	got := post(r.url, token, batch(100)).send(t)
	if p := got.problem(); got.status != 429 || p.Error.Data.Reason != "rate_limited" || p.Error.Data.Limit != "request_burst" ||
		!strings.Contains(p.Error.Message, "smaller") {
		t.Errorf("a batch of 100: %d %s", got.status, got.body)
	}
	if got := post(r.url, token, batch(4)).send(t); got.status != 429 {
		t.Errorf("a batch of 4: %d %s", got.status, got.body)
	}
	if after := len(u.requests()); after != before {
		t.Errorf("the upstream got %d of these", after-before)
	}
	if got := post(r.url, token, batch(3)).send(t); got.status != 202 {
		t.Errorf("a batch of 3, which is what a session may send at once: %d %s", got.status, got.body)
	}
	if got := post(r.url, token, batch(3)).send(t); got.status != 429 {
		t.Errorf("another batch of 3: %d %s", got.status, got.body)
	}
}

// faulty is a Manager with faults.
type faulty struct {
	*cluster.Manager
	fault func() error
}

func (f faulty) Lease(ctx context.Context, t cluster.Token, u cluster.Use) (*cluster.Lease, error) {
	if err := f.fault(); err != nil {
		return nil, err
	}
	return f.Manager.Lease(ctx, t, u)
}

func TestPanicIsAnsweredAndEndsNothingElse(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url).replica()
	target, err := url.Parse(r.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	fault := func() error { panic("a bug") }
	p, err := proxy.New(faulty{r.manager, func() error { return fault() }}, proxy.Config{Upstreams: []proxy.Upstream{{URL: target}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	server := newServer(t, p)
	token := r.openSession()
	if got := post(server+"/mcp", token, pingBody).send(t); got.status != 500 || got.problem().Error.Code != 1500 {
		t.Errorf("panic: %d %s", got.status, got.body)
	}
	fault = func() error { return io.ErrUnexpectedEOF }
	if got := post(server+"/mcp", token, pingBody).send(t); got.status != 500 || strings.Contains(got.body, "EOF") {
		t.Errorf("unknown error: %d %s", got.status, got.body)
	}
}

// A client that leaves while the store is asked is no fault of the store's.
func TestAClientThatLeavesWhileTheStoreIsAskedIsNoFault(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url).replica()
	target, err := url.Parse(r.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var log logBuffer
	asked, watcher := make(chan struct{}), &replica{}
	p, err := proxy.New(slowLease{r.manager, asked}, proxy.Config{
		Upstreams: []proxy.Upstream{{URL: target}}, Observer: watcher, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-asked
		leave()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, newServer(t, p)+"/mcp", strings.NewReader(pingBody))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = post("", r.openSession(), "").header
	if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
		_ = res.Body.Close()
		t.Errorf("a client that left was answered with %d", res.StatusCode)
	}
	eventually(t, "the request to be counted", func() bool { return len(watcher.requests()) == 1 })
	if got := watcher.requests()[0]; got.Status != 499 {
		t.Errorf("status %d, want 499", got.Status)
	}
	if text := log.String(); text != "" {
		t.Errorf("the log blames somebody:\n%s", text)
	}
}

// slowLease is a Manager whose store does not answer.
type slowLease struct {
	*cluster.Manager
	asked chan<- struct{}
}

func (s slowLease) Lease(ctx context.Context, _ cluster.Token, _ cluster.Use) (*cluster.Lease, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", cluster.ErrStoreUnavailable, ctx.Err())
}

func TestConfigIsCheckedByName(t *testing.T) {
	t.Parallel()
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	good := proxy.Upstream{URL: parse("http://h/mcp")}
	for want, cfg := range map[string]proxy.Config{
		"upstream: none":              {},
		`upstream "": configured`:     {Upstreams: []proxy.Upstream{good, good}},
		`upstream "a/b"`:              {Upstreams: []proxy.Upstream{{Name: "a/b", URL: good.URL}}},
		`upstream ".."`:               {Upstreams: []proxy.Upstream{{Name: "..", URL: good.URL}}},
		"its URL must be":             {Upstreams: []proxy.Upstream{{URL: parse("ftp://h/")}}},
		"port in its URL":             {Upstreams: []proxy.Upstream{{URL: parse("http://h:65536/")}}},
		"password in its URL":         {Upstreams: []proxy.Upstream{{URL: parse("http://user:hunter2@h/")}}},
		"fragment":                    {Upstreams: []proxy.Upstream{{URL: parse("http://h/#x")}}},
		"allowed_origins: \"a.b\"":    {Upstreams: []proxy.Upstream{good}, AllowedOrigins: []string{"a.b"}},
		"allowed_hosts: \"http://h\"": {Upstreams: []proxy.Upstream{good}, AllowedHosts: []string{"http://h"}},
		"max_body":                    {Upstreams: []proxy.Upstream{good}, MaxBody: -1},
		"max_header":                  {Upstreams: []proxy.Upstream{good}, MaxHeader: -1},
		"write_timeout":               {Upstreams: []proxy.Upstream{good}, WriteTimeout: -1},
	} {
		_, err := proxy.New(nil, cfg)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("New: %v; want …%s…", err, want)
		}
	}
}

func TestBodyOfUnknownLengthIsLimited(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica(func(c *proxy.Config) { c.MaxBody = 1000 })
	conn := r.dial()
	_, _ = fmt.Fprintf(conn, "POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: */*\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"3e9\r\n%s\r\n0\r\n\r\n", strings.Repeat(" ", 1001))
	text, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(text), "HTTP/1.1 413 ") || !strings.Contains(string(text), "body_too_large") || len(u.requests()) != 0 {
		t.Errorf("answer: %q", text)
	}
}

// That a client leaves while its stream is being opened is no fault of the store's, whatever the store's call ended with: neither of one
// that is to say whether there is the session, nor of one that is to open the stream of a session that is served without it.
func TestAClientThatLeavesWhileItsStreamIsOpenedIsNotRefused(t *testing.T) {
	t.Parallel()
	for name, isKnown := range map[string]bool{"a session that the replica does not know": false, "a session that it knows": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, newUpstream(t, nil).url)
			n := f.node()
			session, done := n.openSession(), 1
			if isKnown {
				wantsAnswer(t, post(n.url, session, pingBody).send(t))
				done++
			}
			_ = f.embedded.Close() // what follows waits for it
			ctx, leave := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer leave()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = get(n.url, session).header
			if res, err := http.DefaultClient.Do(req); err == nil {
				_ = res.Body.Close()
				t.Fatalf("answered with %d, want the request to wait", res.StatusCode)
			}
			eventually(t, "the request to be done", func() bool { return len(n.requests()) == done+1 })
			if got := n.requests()[done]; got.Status != 499 || got.Refused != "" {
				t.Errorf("counted as %d, refused for %q, want 499 and nothing", got.Status, got.Refused)
			}
		})
	}
}
