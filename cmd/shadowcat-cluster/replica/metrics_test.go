package replica

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/integration/issuer"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// forgetful is an upstream that answers calls with a stream, and may lose all sessions.
type forgetful struct{ generation atomic.Int64 }

func (f *forgetful) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	msg, _ := mcp.Peek(body)
	session := fmt.Sprint("generation-", f.generation.Load())
	w.Header().Set("Content-Type", "application/json")
	switch {
	case msg.Initializes:
		w.Header().Set("Mcp-Session-Id", session)
		_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"u","version":"1"}}}`, msg.ID)
	case r.Header.Get("Mcp-Session-Id") != session && r.Header.Get("Mcp-Protocol-Version") != mcp.Revision20260728:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case msg.Method == "tools/call":
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{}}\n\n", msg.ID)
	case msg.Kind == mcp.KindRequest:
		_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{}}`, msg.ID)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// user is a client with a token.
type user struct {
	t                  *testing.T
	method, url        string // POST if empty
	bearer, session    string
	version, lastEvent string
}

// answered is what came of a request.
type answered struct {
	session string // as the header says
	body    string // of a stream to a GET the first line
}

// wants sends a request, which must be answered with a status.
func (u user) wants(status int, body string) answered {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), 20*time.Second)
	u.t.Cleanup(cancel)
	if u.method == "" {
		u.method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, u.method, u.url, strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Mcp-Session-Id": u.session,
		"Authorization": u.bearer, "Mcp-Protocol-Version": u.version, "Last-Event-Id": u.lastEvent,
	} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	if msg, err := mcp.Peek([]byte(body)); err == nil && u.version == mcp.Revision20260728 {
		r.Header.Set("Mcp-Method", msg.Method)
	}
	r.Close = true
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { _ = res.Body.Close() })
	read := answered{session: res.Header.Get(mcp.HeaderSessionID)}
	if u.method == http.MethodGet && mcp.IsMediaType(res.Header.Get("Content-Type"), mcp.MediaTypeEventStream) {
		read.body, _ = bufio.NewReader(res.Body).ReadString('\n')
	} else {
		text, _ := io.ReadAll(res.Body)
		read.body = string(text)
	}
	if res.StatusCode != status {
		u.t.Fatalf("%s %s: %d %s, want %d", u.method, body, res.StatusCode, read.body, status)
	}
	return read
}

var lastEventID = regexp.MustCompile(`(?m)^id: (.*)$`)

// doesABitOfEverything makes a replica do what it counts.
func doesABitOfEverything(t *testing.T, r *Replica, at string, up *forgetful, tokens *issuer.Issuer) {
	t.Helper()
	const (
		initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`
		ping       = `{"jsonrpc":"2.0","id":2,"method":"ping"}`
		call       = `{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"x"}}`
		stateless  = `{"jsonrpc":"2.0","id":4,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`
	)
	u := user{t: t, url: at, bearer: "Bearer " + tokens.Token("alice")}
	unknown := u
	unknown.session = strings.Repeat("x", 63)
	unknown.wants(404, ping)
	stranger := u
	stranger.bearer = "Bearer nonsense"
	stranger.wants(401, ping)
	modern := u
	modern.version = mcp.Revision20260728
	modern.wants(200, stateless)
	brew := u
	brew.method = "BREW"
	brew.wants(405, "")

	u.session = u.wants(200, initialize).session
	u.wants(200, ping)
	answer := u.wants(200, call).body
	again := u
	again.method, again.lastEvent = http.MethodGet, lastEventID.FindAllStringSubmatch(answer, -1)[0][1]
	again.wants(200, "")
	listening := u
	listening.method = http.MethodGet
	listening.wants(200, "")
	up.generation.Add(1)
	u.wants(200, ping)
	r.metrics.Panicked("of a test") // nothing that could be made to panic from outside is known
}

// exposed is what a scrape shows of one name.
type exposed struct {
	kind   string
	values map[string]map[string]bool // by label
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:]+)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"`)
)

// scraped reads the text of a scrape, but for what is not ours.
func scraped(t *testing.T, text string) map[string]exposed {
	t.Helper()
	shown := make(map[string]exposed)
	latest := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if found := typeLine.FindStringSubmatch(line); found != nil {
			latest = found[1]
			shown[latest] = exposed{kind: found[2], values: make(map[string]map[string]bool)}
			continue
		}
		found := sampleLine.FindStringSubmatch(line)
		if len(found) == 0 || !strings.HasPrefix(found[1], latest) {
			continue
		}
		for _, pair := range labelPair.FindAllStringSubmatch(found[2], -1) {
			if pair[1] == "le" {
				continue
			}
			if shown[latest].values[pair[1]] == nil {
				shown[latest].values[pair[1]] = make(map[string]bool)
			}
			shown[latest].values[pair[1]][pair[2]] = true
		}
	}
	maps.DeleteFunc(shown, func(name string, _ exposed) bool {
		return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "promhttp_")
	})
	return shown
}

// differences says how a scrape differs from what is documented.
func differences(shown map[string]exposed) (found []string) {
	for _, f := range admin.Families() {
		got, ok := shown[f.FullName()]
		if !ok {
			found = append(found, f.FullName()+" is not there")
			continue
		}
		delete(shown, f.FullName())
		if got.kind != string(f.Kind) {
			found = append(found, fmt.Sprintf("%s is a %s, documented as %s", f.FullName(), got.kind, f.Kind))
		}
		for _, l := range f.Labels {
			for value := range got.values[l.Name] {
				if len(l.Values) > 0 && !slices.Contains(l.Values, value) {
					found = append(found, fmt.Sprintf("%s has %s=%q, which is not documented", f.FullName(), l.Name, value))
				}
			}
			if len(got.values[l.Name]) == 0 {
				found = append(found, fmt.Sprintf("%s has no label %s", f.FullName(), l.Name))
			}
			delete(got.values, l.Name)
		}
		for label := range got.values {
			found = append(found, fmt.Sprintf("%s has a label %s, which is not documented", f.FullName(), label))
		}
	}
	for name := range shown {
		found = append(found, name+" is not documented")
	}
	return found
}

func TestAScrapeHasAllThatIsDocumentedAndNothingElse(t *testing.T) {
	t.Parallel()
	tokens := issuer.Start()
	t.Cleanup(tokens.Close)
	up := &forgetful{}
	server := httptest.NewServer(up)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	target, err := url.Parse(server.URL + "/mcp")
	if err != nil {
		t.Fatal(err)
	}
	store, err := redisstore.Open(redisstore.EmbeddedURL, redisstore.Options{Config: cluster.DefaultConfig(), AuditStream: 100})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	r := newReplicaWith(t, nil, func(c *Config) {
		c.Store = store
		c.Proxy.Upstreams = []proxy.Upstream{{Name: "files", URL: target}}
		c.Auth = auth.DefaultConfig()
		c.Auth.Mode, c.Auth.Issuer, c.Auth.Audiences, c.Auth.Resource = auth.ModeJWT, tokens.URL(), []string{issuer.Audience}, issuer.Audience
		c.Recording.Mode = record.Metadata
	})
	listener, adminListener := listen(t), listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, listener, adminListener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	at := "http://" + adminListener.Addr().String()
	deadline := time.Now().Add(20 * time.Second)
	for status(t, at+"/readyz") != http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("not ready in time")
		}
	}
	doesABitOfEverything(t, r, "http://"+listener.Addr().String()+"/files/mcp", up, tokens)
	for {
		text := user{t: t, url: at + "/metrics", method: http.MethodGet}.wants(http.StatusOK, "").body
		found := differences(scraped(t, text))
		if len(found) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s\n%s", strings.Join(found, "\n"), text)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// The words that label metrics are those of the packages that say them.
func TestDocumentedValuesAreThoseThatAreSaid(t *testing.T) {
	t.Parallel()
	said := map[string][]string{
		"auth_refusals_total reason":      append(words(auth.Reasons()), "keys_unavailable", "key_not_fetched"),
		"recoveries_total outcome":        words(proxy.Recoveries()),
		"resumptions_total outcome":       words(proxy.Resumptions()),
		"leader_transitions_total reason": words(sweeper.Reasons()),
	}
	for _, f := range admin.Families() {
		for _, l := range f.Labels {
			if want, found := said[f.Name+" "+l.Name]; found && !slices.Equal(l.Values, want) {
				t.Errorf("%s of %s: %q is documented, %q is said", l.Name, f.Name, l.Values, want)
			}
			for _, limit := range l.Values {
				if l.Name == "limit" && limit != "none" && limit != "other" && !strings.Contains(settings.Document(), "| `"+limit+"` |") {
					t.Errorf("%s is no setting", limit)
				}
			}
		}
	}
}

func words[S ~string](of []S) (texts []string) {
	for _, w := range of {
		texts = append(texts, string(w))
	}
	return texts
}
