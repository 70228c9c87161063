package proxy_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is some replicas on one store, in front of one upstream.
type fleet struct {
	t        *testing.T
	limits   cluster.Config
	embedded *redisstore.Embedded
	upstream *url.URL
	sessions func(proxy.Sessions) proxy.Sessions // what nodes that are started from now on have for a manager; nil: it
}

func newFleet(t *testing.T, upstream string, change ...func(*cluster.Config)) *fleet {
	t.Helper()
	embedded, err := redisstore.StartEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = embedded.Close() })
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, embedded: embedded, upstream: target, limits: cluster.DefaultConfig()}
	f.limits.StoreTimeout = 5 * time.Second // a busy machine is no store fault
	f.limits.ReportInterval = 20 * time.Millisecond
	f.limits.Lease = 100 * time.Millisecond
	for _, c := range change {
		c(&f.limits)
	}
	return f
}

// replica is a proxy that listens.
type replica struct {
	t       *testing.T
	url     string
	manager *cluster.Manager
	server  *httptest.Server

	mu        sync.Mutex
	done      []proxy.RequestInfo
	recovered []proxy.Recovery
	resumed   []proxy.Resumption
}

func (r *replica) RecoveryDone(outcome proxy.Recovery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recovered = append(r.recovered, outcome)
}

func (r *replica) ResumptionDone(outcome proxy.Resumption) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resumed = append(r.resumed, outcome)
}

func (r *replica) RequestDone(info proxy.RequestInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, info)
}

// requests returns what the observer has heard.
func (r *replica) requests() []proxy.RequestInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.done)
}

// replica starts one.
func (f *fleet) replica(change ...func(*proxy.Config)) *replica {
	f.t.Helper()
	return f.replicaBehind(proxy.ServerLimits{}, change...)
}

// replicaBehind starts one behind a server with bounds.
func (f *fleet) replicaBehind(limits proxy.ServerLimits, change ...func(*proxy.Config)) *replica {
	f.t.Helper()
	store, err := redisstore.Open(f.embedded.URL(), redisstore.Options{Config: f.limits})
	if err != nil {
		f.t.Fatal(err)
	}
	manager, err := cluster.NewManager(store, f.limits, cluster.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	r := &replica{t: f.t, manager: manager}
	cfg := proxy.Config{Upstreams: []proxy.Upstream{{URL: f.upstream}}, Observer: r}
	for _, c := range change {
		c(&cfg)
	}
	p, err := proxy.New(manager, cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	r.server = httptest.NewUnstartedServer(p)
	r.server.Config = proxy.NewServer(p, limits)
	r.server.Start()
	r.url = r.server.URL + "/mcp"

	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = manager.Run(ctx) })
	running.Go(func() { _ = p.RunStreams(ctx) })
	f.t.Cleanup(func() {
		r.server.CloseClientConnections()
		r.server.Close()
		p.Close()
		stop()
		running.Wait()
		_ = store.Close()
	})
	return r
}

// request is a request as a client may send it, or should not.
type request struct {
	method, url, body string
	header            http.Header
}

func post(url, token, body string) request {
	r := request{method: http.MethodPost, url: url, body: body, header: http.Header{
		"Content-Type": {"application/json"},
		"Accept":       {"application/json, text/event-stream"},
	}}
	return r.with("Mcp-Session-Id", token)
}

// stateless is a POST of the era without sessions. params are more of them, such as "name":"x"; they may be empty.
func stateless(url, method, params string) request {
	if params != "" {
		params += ","
	}
	body := `{"jsonrpc":"2.0","id":7,"method":"` + method + `","params":{` + params +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`
	return post(url, "", body).with("Mcp-Protocol-Version", "2026-07-28").with("Mcp-Method", method)
}

func get(url, token string) request {
	return request{method: http.MethodGet, url: url, header: http.Header{"Accept": {"text/event-stream"}}}.with("Mcp-Session-Id", token)
}

func del(url, token string) request {
	return request{method: http.MethodDelete, url: url, header: http.Header{}}.with("Mcp-Session-Id", token)
}

// with returns the request with a header set, or removed when value is empty.
func (r request) with(name, value string) request {
	r.header = r.header.Clone()
	if r.header.Del(name); value != "" {
		r.header.Set(name, value)
	}
	return r
}

// answer is an answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// problem is the JSON-RPC error in an answer.
type problem struct {
	ID    json.RawMessage `json:"id"`
	Error struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Data    struct {
			Reason       string `json:"reason"`
			Limit        string `json:"limit"`
			RetryAfterMS int64  `json:"retry_after_ms"`
		} `json:"data"`
	} `json:"error"`
}

func (a answer) problem() problem {
	var p problem
	_ = json.Unmarshal([]byte(a.body), &p)
	return p
}

// opened is an answer whose body is read as it comes.
type opened struct{ *http.Response }

// open sends the request and returns the answer with its body unread. A test that does not read it to the end closes it.
func (r request) open(t *testing.T) *opened {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = r.header
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", r.method, err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return &opened{res}
}

func (r request) send(t *testing.T) answer {
	t.Helper()
	res := r.open(t)
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body), err}
}

const (
	initializeBody = `{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}`
	pingBody       = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
	initialized    = `{"jsonrpc":"2.0","id":"init","result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"u","version":"1"}}}`
)

// openSession initializes and returns the token.
func (r *replica) openSession() string {
	r.t.Helper()
	return r.openSessionWith(initializeBody)
}

func (r *replica) openSessionWith(body string) string {
	r.t.Helper()
	got := post(r.url, "", body).send(r.t)
	token := got.header.Get("Mcp-Session-Id")
	if got.status != http.StatusOK || len(token) != cluster.TokenLen {
		r.t.Fatalf("initialize: %d, token of %d bytes, body %s", got.status, len(token), got.body)
	}
	return token
}

// live counts the sessions that are not ended.
func (r *replica) live() int {
	r.t.Helper()
	page, err := r.manager.List(context.Background(), cluster.Query{Limit: 100})
	if err != nil {
		r.t.Fatal(err)
	}
	return len(page.Sessions)
}

// status is what the store says of the session of a token.
func (r *replica) status(token string) cluster.Status {
	r.t.Helper()
	parsed, err := cluster.ParseToken(token)
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := r.manager.Get(context.Background(), parsed.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Status
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for: %s", what)
		case <-tick.C:
		}
	}
}

// receive waits for a value.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for: %s", what)
		panic("not reached")
	}
}

// recorded is a request as an upstream saw it.
type recorded struct {
	method, path, query, host, body string
	header                          http.Header
	msg                             mcp.Message
}

// upstream is a hand-written MCP server. Each request it gets is recorded, then answered by the handler; initialize and
// DELETE have answers of their own, unless the handler wants them.
type upstream struct {
	url string

	mu  sync.Mutex
	got []recorded
}

type handler = func(w http.ResponseWriter, r *http.Request, got recorded) (handled bool)

// upstreamSession is the id that a hand-written upstream gives all its sessions.
const upstreamSession = "upstream-secret-session"

func newUpstream(t *testing.T, handle handler) *upstream {
	t.Helper()
	u := &upstream{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got := recorded{method: r.Method, path: r.URL.Path, query: r.URL.RawQuery, host: r.Host, body: string(body), header: r.Header.Clone()}
		got.msg, _ = mcp.Peek(body)
		u.mu.Lock()
		u.got = append(u.got, got)
		u.mu.Unlock()
		switch {
		case handle != nil && handle(w, r, got):
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case got.msg.Initializes:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Mcp-Session-Id", upstreamSession)
			_, _ = io.WriteString(w, strings.Replace(initialized, `"init"`, string(got.msg.ID), 1))
		case got.msg.Kind == mcp.KindRequest:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":`+string(got.msg.ID)+`,"result":{}}`)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	u.url = server.URL + "/endpoint"
	return u
}

// requests returns what the upstream got.
func (u *upstream) requests() []recorded {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.got)
}

// ended counts the DELETEs of the upstream's session.
func (u *upstream) ended() int {
	n := 0
	for _, r := range u.requests() {
		if r.method == http.MethodDelete && r.header.Get("Mcp-Session-Id") == upstreamSession {
			n++
		}
	}
	return n
}

// sdkUpstream is a server of the official SDK.
func sdkUpstream(t *testing.T, server *sdk.Server, opts *sdk.StreamableHTTPOptions) string {
	t.Helper()
	h := httptest.NewServer(sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, opts))
	t.Cleanup(func() {
		for session := range server.Sessions() {
			_ = session.Close()
		}
		h.CloseClientConnections()
		h.Close()
	})
	return h.URL
}

// deadAddress is where nothing listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "http://" + l.Addr().String()
}

// flush sends what an upstream has written.
func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

// dial opens a connection to the replica, for what no HTTP client would send.
func (r *replica) dial() net.Conn {
	r.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(r.t.Context(), "tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	return conn
}
