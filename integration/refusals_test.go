package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// What a client may get wrong: each has its status and its reason, and leaves nothing in the store.
func TestBadInputIsRefusedAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newUpstream(t).URL())
	url := d.Replicas[0].URL()
	token := openSession(t, url, "2025-11-25")
	// The two sides of a token of another session with the same shape.
	other, _, _ := strings.Cut(openSession(t, url, "2025-11-25"), ".")
	_, secret, _ := strings.Cut(token, ".")
	before := storeKeys(t, store)

	ping := func(token string) rawRequest { return post(url, token, pingBody) }
	huge := post(url, token, `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"`+strings.Repeat("x", 5<<20)+`"}}`)
	for _, test := range []struct {
		name    string
		request rawRequest
		status  int
		reason  string
	}{
		{"malformed token", ping("nonsense"), 404, "session_not_found"},
		{"token with braces", ping("{" + token[1:len(token)-1] + "}"), 404, "session_not_found"},
		{"token of globs", ping(strings.Repeat("*", len(token))), 404, "session_not_found"},
		{"wrong secret", ping(other + "." + secret), 404, "session_not_found"},
		{"token without a secret", ping(other + "."), 404, "session_not_found"},
		{"session id in capitals", ping(strings.ToUpper(other) + "." + secret), 404, "session_not_found"},
		{"no token", ping(""), 400, "session_required"},
		{"wrong Content-Type", ping(token).with("Content-Type", "text/plain"), 415, ""},
		{"wrong Accept", ping(token).with("Accept", "text/html"), 406, ""},
		{"invalid JSON", post(url, token, `{"jsonrpc":`), 400, ""},
		{"no JSON-RPC", post(url, token, `"ping"`), 400, ""},
		{"batch where none is allowed", post(url, token, "["+pingBody+"]"), 400, ""},
		{"body of 5 MiB", huge, 413, "body_too_large"},
		{"unsupported protocol version", ping(token).with("MCP-Protocol-Version", "1999-01-01"), 400, ""},
		{"foreign Origin", ping(token).with("Origin", "https://evil.example"), 403, ""},
		{"unknown upstream", post(strings.Replace(url, "/mcp", "/nobody/mcp", 1), token, pingBody), 404, ""},
		{"unknown method", rawRequest{method: http.MethodPut, url: url, header: ping(token).header, body: pingBody}, 405, ""},
		{"initialize that is no JSON", post(url, "", `{"method":"initialize"`), 400, ""},
		{"GET without a token", rawRequest{
			method: http.MethodGet, url: url, header: http.Header{"Accept": {"text/event-stream"}},
		}, 400, "session_required"},
		{"DELETE without a token", rawRequest{method: http.MethodDelete, url: url, header: http.Header{}}, 400, "session_required"},
		{"DELETE of a foreign session", rawRequest{
			method: http.MethodDelete, url: url, header: http.Header{"Mcp-Session-Id": {other + "." + secret}},
		}, 404, "session_not_found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := mustSend(t, test.request)
			if got.status != test.status {
				t.Errorf("got %s, want %d", got, test.status)
			}
			if test.reason != "" && got.reason() != test.reason {
				t.Errorf("got %s, want reason %q", got, test.reason)
			}
			if got.body == "" {
				t.Error("the answer does not say what is wrong")
			}
			if strings.Contains(got.body, secret) {
				t.Errorf("the answer %q contains the secret", got.body)
			}
		})
	}
	// Go's server refuses headers over 1 MiB itself; 64 KiB must get as far as the session lookup.
	t.Run("token of 64 KiB", func(t *testing.T) {
		if got := mustSend(t, ping(strings.Repeat("a", 64<<10))); got.status != 404 && got.status != 431 {
			t.Errorf("got %s, want 404 or 431", got)
		}
	})

	if after := storeKeys(t, store); !slices.Equal(before, after) {
		t.Errorf("the store holds %v, want %v as before", after, before)
	}
	if got := mustSend(t, ping(token)); got.status != http.StatusOK {
		t.Errorf("the session after all that: got %s, want 200", got)
	}
}

func TestReplicaStartsBeforeItsStore(t *testing.T) {
	t.Parallel()
	store := newStoppedRedis(t)
	r := newReplica(t, store.URL(), newUpstream(t).URL())
	if err := r.Launch(); err != nil {
		t.Fatal(err)
	}
	if err := r.WaitListening(t.Context()); err != nil {
		t.Fatal(err)
	}
	readyz := rawRequest{method: http.MethodGet, url: r.AdminURL("/readyz"), header: http.Header{}}
	if got := mustSend(t, readyz); got.status != http.StatusServiceUnavailable || !mentionsStore(got.body) {
		t.Errorf("/readyz without a store: got %s, want 503 that names Redis", got)
	}
	if got := mustSend(t, rawRequest{method: http.MethodGet, url: r.AdminURL("/healthz"), header: http.Header{}}); got.status != 200 {
		t.Errorf("/healthz without a store: got %s, want 200", got)
	}
	initialize := post(r.URL(), "", initializeBody("2025-11-25"))
	got := mustSend(t, initialize)
	if got.status != http.StatusServiceUnavailable || got.reason() != "store_unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("initialize without a store: got %s, want 503 with Retry-After and reason store_unavailable", got)
	}
	if !mentionsStore(r.Output()) {
		t.Errorf("the replica's log does not say that Redis is away:\n%s", r.Output())
	}

	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, recovery, process.Answering(r.AdminURL("/readyz"), http.StatusOK))
	t.Logf("ready %s after the store", took.Round(1e6))
	openSession(t, r.URL(), "2025-11-25")
}

func mentionsStore(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "redis") || strings.Contains(text, "store")
}

func TestUpstreamThatIsDown(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	upstream := newUpstream(t)
	d := newDeployment(t, store.URL(), upstream.URL())
	token := openSession(t, d.URL(), "2025-11-25")
	if err := upstream.Close(); err != nil {
		t.Fatal(err)
	}
	for name, request := range map[string]rawRequest{
		"initialize": post(d.URL(), "", initializeBody("2025-11-25")),
		"ping":       post(d.URL(), token, pingBody),
	} {
		got := mustSend(t, request)
		if got.status != http.StatusServiceUnavailable || got.reason() != "upstream_unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: got %s, want 503 with Retry-After and reason upstream_unavailable", name, got)
		}
	}
	live := slices.DeleteFunc(listSessions(t, store.URL()), func(s listedSession) bool {
		return s.Status != "initializing" && s.Status != "active"
	})
	id, _, _ := strings.Cut(token, ".")
	if len(live) > 1 || len(live) == 1 && live[0].ID != id {
		t.Errorf("the failed initialize left live sessions behind: %+v", live)
	}
}

// Each upstream has its own path, and a session of one is unknown to the other.
func TestUpstreamsByName(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	r := newReplica(t, store.URL(), "one="+newUpstream(t).URL(), "two="+newUpstream(t).URL())
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := func(p string) string { return "http://" + r.Address() + p }
	token := openSession(t, path("/one/mcp"), "2025-11-25")
	if got := mustSend(t, post(path("/one/mcp"), token, pingBody)); got.status != http.StatusOK {
		t.Errorf("at its own upstream: got %s, want 200", got)
	}
	if got := mustSend(t, post(path("/two/mcp"), token, pingBody)); got.status != 404 || got.reason() != "session_not_found" {
		t.Errorf("at the other upstream: got %s, want 404 with reason session_not_found", got)
	}
	for _, unknown := range []string{"/three/mcp", "/mcp", "/", "/one/mcp/x"} {
		if got := mustSend(t, post(path(unknown), "", initializeBody("2025-11-25"))); got.status != http.StatusNotFound {
			t.Errorf("initialize at %s: got %s, want 404", unknown, got)
		}
	}
	if got := len(listSessions(t, store.URL())); got != 1 {
		t.Errorf("the store lists %d sessions, want 1", got)
	}
}

// Each revision with sessions, as it goes over the wire.
func TestInitializeInEachRevision(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL())
	for _, revision := range legacyRevisions {
		t.Run(revision, func(t *testing.T) {
			t.Parallel()
			answer := mustSend(t, post(d.URL(), "", initializeBody(revision)))
			if answer.status != http.StatusOK || !strings.Contains(answer.body, fmt.Sprintf(`"protocolVersion":%q`, revision)) {
				t.Fatalf("initialize: got %s, want 200 in revision %s", answer, revision)
			}
			if !strings.Contains(answer.body, `"id":"init-1"`) {
				t.Errorf("initialize: the answer %q has not the request's id", answer.body)
			}
			token := answer.header.Get("Mcp-Session-Id")
			if len(token) != 63 {
				t.Errorf("initialize: the token has %d characters, want 63", len(token))
			}
			for _, r := range d.Replicas {
				ping := post(r.URL(), token, pingBody).with("MCP-Protocol-Version", revision)
				if revision == "2025-03-26" {
					ping = ping.with("MCP-Protocol-Version", "") // the header came with the next revision
				}
				if got := mustSend(t, ping); got.status != http.StatusOK {
					t.Errorf("ping at %s: got %s, want 200", r.URL(), got)
				}
			}
			end := rawRequest{method: http.MethodDelete, url: d.URL(), header: http.Header{"Mcp-Session-Id": {token}}}
			if got := mustSend(t, end); got.status/100 != 2 {
				t.Errorf("DELETE: got %s, want success", got)
			}
			for _, r := range d.Replicas {
				eventually(t, revocation, answers(post(r.URL(), token, pingBody), http.StatusNotFound, "session_not_found"))
			}
		})
	}
}

// storeKeys lists what the store holds about sessions, sorted. What replicas keep about themselves comes and goes.
func storeKeys(t *testing.T, store *redisserver.Server) []string {
	t.Helper()
	var keys []string
	for _, pattern := range []string{"*:session:*", "*:more:*", "*:pending:*", "*:events:*", "*:frames:*", "*principal*"} {
		found, err := store.Keys(context.WithoutCancel(t.Context()), pattern)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, found...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
