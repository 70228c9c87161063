package integration_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/collector"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
)

const (
	callersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	callersSpan  = "00f067aa0ba902b7"
	callersWord  = "00-" + callersTrace + "-" + callersSpan + "-01"
)

// newCollector starts a collector for the test alone.
func newCollector(t *testing.T) *collector.Collector {
	t.Helper()
	c := collector.Start()
	t.Cleanup(closer(t, c.Close))
	return c
}

// newTraced starts a replica with variables of its environment.
func newTraced(t *testing.T, options replica.Options) *replica.Replica {
	t.Helper()
	options.Executable = built(t, productBinary)
	r, err := replica.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	watch(t, r)
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// spanOf waits for a span of a name that fits.
func spanOf(t *testing.T, c *collector.Collector, name string, fits func(collector.Span) bool) (found collector.Span) {
	t.Helper()
	eventually(t, answerTimeout, func(context.Context) error {
		for _, s := range c.Spans(name) {
			if fits(s) {
				found = s
				return nil
			}
		}
		return errors.New("there is no such span " + name)
	})
	return found
}

// One tool call of a session that another replica has opened: the caller's trace goes on through the proxy to the store and to the upstream.
func TestATraceOfOneToolCallThroughProxyAndStore(t *testing.T) {
	t.Parallel()
	heard := make(chan http.Header, 1)
	inner := newTalkativeUpstream(t)
	upstream := newRelay(t, inner, func(r *http.Request, body string) {
		if strings.Contains(body, `"tools/call"`) {
			heard <- r.Header.Clone()
		}
	})
	store, c := newRedis(t, redisOptions), newCollector(t)
	options := replica.Options{RedisURL: store.URL(), Upstreams: []string{upstream}, Env: append(c.Environment(), "OTEL_RESOURCE_ATTRIBUTES=team=mcp")}
	options.ID = "r-1"
	first := newTraced(t, options)
	options.ID = "r-2"
	second := newTraced(t, options)
	token := openSession(t, first.URL(), "2025-11-25")
	id, _, _ := strings.Cut(token, ".")
	call := post(second.URL(), token, `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","_meta":{"traceparent":"`+callersWord+`"}}}`)
	answer := mustSend(t, call.with("X-Request-Id", "call-7"))
	if answer.status != http.StatusOK || answer.header.Get("X-Request-Id") != "call-7" {
		t.Fatalf("tools/call: %s, request id %q", answer, answer.header.Get("X-Request-Id"))
	}

	span := spanOf(t, c, "tools/call", func(s collector.Span) bool { return s.Trace == callersTrace })
	if span.Parent != callersSpan || span.Service["service.instance.id"] != "r-2" || span.Service["service.name"] != "shadowcat-cluster" || span.Service["team"] != "mcp" {
		t.Errorf("the call's span is under %q, from %v", span.Parent, span.Service)
	}
	for key, want := range map[string]string{
		"mcp.session.id": id, "shadowcat.lease": "granted", "http.response.status_code": "200", "shadowcat.request_id": "call-7",
	} {
		if span.Attributes[key] != want {
			t.Errorf("%s is %q, want %q", key, span.Attributes[key], want)
		}
	}
	below := make(map[string]collector.Span)
	for _, s := range c.Below(span) {
		below[s.Name] = s
	}
	if _, found := below["session_lease"]; !found {
		t.Errorf("the store's script is no span below the call: %v", below)
	}
	if told := (<-heard).Get("Traceparent"); told != "00-"+callersTrace+"-"+below["POST"].ID+"-01" {
		t.Errorf("the upstream is told %q, below the call is %v", told, below["POST"])
	}
	shown := []string{"shadowcat.lease", "http.response.status_code", "db.response.status_code"}
	opened := spanOf(t, c, "initialize", func(s collector.Span) bool { return s.Attributes["mcp.session.id"] == id })
	t.Logf("opening the session:\n%sthe call:\n%s", c.Tree(opened, shown...), c.Tree(span, shown...))
	spanOf(t, c, "sweep", func(s collector.Span) bool { return s.Parent == "" && len(c.Below(s)) > 0 })
	spanOf(t, c, "emergency cleanup", func(collector.Span) bool { return true })
}

// newRelay passes requests on to an upstream, and shows them first.
func newRelay(t *testing.T, upstream string, show func(*http.Request, string)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		show(r, string(body))
		out, err := http.NewRequestWithContext(r.Context(), r.Method, upstream, strings.NewReader(string(body)))
		if err != nil {
			t.Error(err)
			return
		}
		out.Header = r.Header
		res, err := httpClient.Do(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		maps.Copy(w.Header(), res.Header)
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/mcp"
}

// What waits to be sent is sent when the replica stops.
func TestTheLastSpansAreSentAtTheEnd(t *testing.T) {
	t.Parallel()
	store, c := newRedis(t, redisOptions), newCollector(t)
	r := newTraced(t, replica.Options{
		RedisURL: store.URL(), Upstreams: []string{newTalkativeUpstream(t)}, Env: append(c.Environment(), "OTEL_BSP_SCHEDULE_DELAY=3600000"),
	})
	openSession(t, r.URL(), "2025-11-25")
	if got := c.Spans("initialize"); len(got) != 0 {
		t.Fatalf("spans were sent already: %v", got)
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := c.Spans("initialize"); len(got) != 1 {
		t.Errorf("%d spans of initialize were sent, want 1", len(got))
	}
}

// A collector that takes connections and never answers costs requests nothing, and holds up the end for two seconds at most.
func TestACollectorThatHangsSlowsNoRequest(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	store := newRedis(t, redisOptions)
	r := newTraced(t, replica.Options{
		RedisURL: store.URL(), Upstreams: []string{newTalkativeUpstream(t)}, Args: []string{"--request-rate=0"},
		Env: []string{
			"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT=http://" + silent.Addr().String(),
			"OTEL_BSP_MAX_QUEUE_SIZE=10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=5", "OTEL_BSP_SCHEDULE_DELAY=10",
		},
	})
	token := openSession(t, r.URL(), "2025-11-25")
	begun := time.Now()
	for range 200 {
		if got := mustSend(t, post(r.URL(), token, pingBody)); got.status != http.StatusOK {
			t.Fatalf("ping: %s", got)
		}
	}
	if took := time.Since(begun); took > answerTimeout {
		t.Errorf("200 pings took %v", took)
	}
	begun = time.Now()
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("the replica took %v to stop", took)
	}
	if !strings.Contains(r.Output(), "spans") {
		t.Error("the log does not say that spans are lost")
	}
}

// What the environment asks for and cannot have is an error at start, with status 2.
func TestTracesByGRPCAreRefused(t *testing.T) {
	t.Parallel()
	r, err := replica.New(replica.Options{
		Executable: built(t, productBinary), RedisURL: "redis://127.0.0.1:1", Upstreams: []string{"http://127.0.0.1:1/mcp"},
		Env: []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Launch(); err != nil {
		t.Fatal(err)
	}
	<-r.Ended()
	if r.ExitCode() != 2 || !strings.Contains(r.Output(), `OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" is not supported`) {
		t.Errorf("status %d: %s", r.ExitCode(), r.Output())
	}
}

// The log level is changed while a replica runs.
func TestTheLogLevelIsChangedWhileAReplicaRuns(t *testing.T) {
	t.Parallel()
	r := newReplica(t, newRedis(t, redisOptions).URL(), newTalkativeUpstream(t))
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := openSession(t, r.URL(), "2025-11-25")
	ping := func(id string) {
		t.Helper()
		mustSend(t, post(r.URL(), token, pingBody).with("X-Request-Id", id))
	}
	set := func(level string) {
		t.Helper()
		got := mustSend(t, rawRequest{method: http.MethodPut, url: r.AdminURL("/loglevel"), header: http.Header{}, body: level})
		if got.status != http.StatusOK || got.body != level+"\n" {
			t.Fatalf("PUT /loglevel: %s", got)
		}
	}
	ping("before-the-change")
	set("debug")
	ping("after-the-change")
	eventually(t, answerTimeout, func(context.Context) error {
		if !strings.Contains(r.Output(), `"request_id":"after-the-change"`) {
			return errors.New("the request is not logged")
		}
		return nil
	})
	set("info")
	ping("after-the-last")
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"before-the-change", "after-the-last"} {
		if strings.Contains(r.Output(), id) {
			t.Errorf("a request is logged at level info: %s", id)
		}
	}
}

// hidden is in every secret of the test below, and in nothing else.
const hidden = "hunter2"

// newIndiscreetUpstream is an MCP server that answers with secrets in every way, broken ones among them.
func newIndiscreetUpstream(t *testing.T) string {
	t.Helper()
	var isLost atomic.Bool // its session
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		says := func(name string) bool { return strings.Contains(string(body), `"`+name+`"`) }
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Set-Cookie", "upstream="+hidden)
		switch {
		case says("initialize"):
			isLost.Store(false)
			w.Header().Set("Mcp-Session-Id", "session-"+hidden)
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":"init-1","result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"`+hidden+`","version":"1"}}}`)
		case says("lose"), isLost.Load():
			isLost.Store(true)
			w.WriteHeader(http.StatusNotFound)
		case says("garbage"):
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_, _ = io.WriteString(conn, hidden+" is no HTTP\r\n\r\n")
				_ = conn.Close() // it was only written to
			}
		case says("header"):
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+hidden+"\r\n\r\n")
				_ = conn.Close() // it was only written to
			}
		case says("redirect"):
			w.Header().Set("Location", "/mcp?key="+hidden)
			w.WriteHeader(http.StatusTemporaryRedirect)
		case says("fail"):
			http.Error(w, hidden, http.StatusInternalServerError)
		case says("break off"):
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: {\""+hidden+"\n\nid: "+hidden+"\nnonsense "+hidden+"\n\n")
			panic(http.ErrAbortHandler)
		default:
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"text":"`+hidden+`"}}`)
		}
	}))
	server.Config.ErrorLog = nil
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL + "/mcp?key=" + hidden
}

// secretive adds secrets to a request wherever a client may have some.
func secretive(q rawRequest) rawRequest {
	q.url += "?token=" + hidden
	for name, value := range map[string]string{
		"X-Forwarded-User": "alice-" + hidden, "Authorization": "Bearer " + hidden, "Cookie": "session=" + hidden, "Baggage": "user=" + hidden,
		"User-Agent": hidden, "X-Api-Key": hidden, "X-Forwarded-For": hidden, "X-Request-Id": "odd " + hidden, "Traceparent": "00-" + hidden,
		"Idempotency-Key": hidden, "Referer": "http://" + hidden,
	} {
		q = q.with(name, value)
	}
	return q
}

// secretiveRequests are requests of a session with secrets in all their places, such as are served and such as are refused.
func secretiveRequests(url, token string) (all []rawRequest) {
	body := func(method string) string {
		return `{"jsonrpc":"2.0","id":"` + hidden + `","method":"` + method + `","params":{"name":"` + hidden + `","uri":"file:///` + hidden +
			`","_meta":{"traceparent":"` + hidden + `","tracestate":"` + hidden + `"}}}`
	}
	for _, method := range []string{"tools/call", "resources/subscribe", "garbage", "header", "redirect", "fail", "break off", "x-" + hidden, "ping"} {
		all = append(all, post(url, token, body(method)))
	}
	all = append(all, []rawRequest{
		post(url, token, `{"jsonrpc":"2.0",`+hidden),
		post(url, token, `{"jsonrpc":"2.0","`+hidden+`":1}`),
		post(url, token, body("ping")).with("Mcp-Protocol-Version", hidden),
		post(url, token, body("ping")).with("Content-Type", hidden),
		post(url, token, body("ping")).with("Origin", "http://"+hidden),
		post(url, hidden, body("ping")),
		post(url, token+hidden, body("ping")),
		post(strings.Replace(url, "/mcp", "/"+hidden, 1), token, body("ping")),
		stateless(url, "tools/list").with("Mcp-Name", hidden),
		{method: http.MethodGet, url: url, header: http.Header{"Mcp-Session-Id": {token}}},
		{method: http.MethodGet, url: url, header: http.Header{"Accept": {"text/event-stream"}, "Mcp-Session-Id": {token}, "Last-Event-Id": {hidden}}},
		{method: strings.ToUpper(hidden), url: url, header: http.Header{}},
		{method: http.MethodDelete, url: url, header: http.Header{"Mcp-Session-Id": {token + hidden}}},
		post(url, token, body("lose")), // ends the session
	}...)
	for i := range all {
		all[i] = secretive(all[i])
	}
	return all
}

// Requests with secrets in all their places, at level debug, traced and recorded: neither the log nor a span nor a metric holds one.
func TestNoSecretIsInLogsSpansOrMetrics(t *testing.T) {
	t.Parallel()
	store, c := newRedis(t, redisOptions), newCollector(t)
	r := newTraced(t, replica.Options{
		RedisURL: store.URL(), Upstreams: []string{newIndiscreetUpstream(t)}, Env: c.Environment(),
		Args: []string{
			"--log-level=debug", "--recording=full", "--auth-mode=header", "--auth-header=X-Forwarded-User", "--auth-trusted-proxies=127.0.0.1/32",
			"--max-sessions=5", "--evict-min-idle=0", "--request-rate=0",
		},
	})
	var tokens []string
	open := func() string {
		t.Helper()
		got := mustSend(t, secretive(post(r.URL(), "", strings.Replace(initializeBody("2025-11-25"), `"raw"`, `"`+hidden+`"`, 1))))
		token := got.header.Get("Mcp-Session-Id")
		if got.status != http.StatusOK || token == "" {
			t.Fatalf("initialize: %s", got)
		}
		tokens = append(tokens, token)
		return token
	}
	token := open()
	for _, q := range secretiveRequests(r.URL(), token) {
		_, _ = q.send(t.Context()) // whatever comes of it
	}
	for range 7 { // the last ones evict
		open()
	}
	spanOf(t, c, "evict session", func(collector.Span) bool { return true })
	spanOf(t, c, "recover session", func(collector.Span) bool { return true })
	metrics := mustSend(t, rawRequest{method: http.MethodGet, url: r.AdminURL("/metrics"), header: http.Header{}}).body
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}

	secrets := []string{hidden, strings.ToUpper(hidden)}
	for _, token := range tokens {
		id, secret, _ := strings.Cut(token, ".")
		secrets = append(secrets, secret)
		if !strings.Contains(r.Output(), id) {
			t.Errorf("the log does not name session %s", id)
		}
	}
	for name, text := range map[string]string{"log": r.Output(), "spans": c.Text(), "metrics": metrics} {
		for _, secret := range secrets {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("the %s hold a secret: …%s…", name, text[max(0, at-200):min(len(text), at+100)])
			}
		}
		if len(text) < 1000 {
			t.Errorf("the %s are hardly there: %s", name, text)
		}
	}
}
