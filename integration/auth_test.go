package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"

	"github.com/tapwire/shadowcat-cluster/integration/issuer"
	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
)

func newIssuer(t *testing.T) *issuer.Issuer {
	t.Helper()
	i := issuer.Start()
	t.Cleanup(i.Close)
	return i
}

// asksFor are the arguments of replicas that ask for tokens of an issuer.
func asksFor(i *issuer.Issuer, more ...string) []string {
	return append([]string{
		"--auth-mode", "jwt", "--auth-issuer", i.URL(), "--auth-audience", issuer.Audience, "--auth-resource", issuer.Audience,
	}, more...)
}

// as returns the request with a bearer token; without one when it is empty.
func (r rawRequest) as(bearer string) rawRequest {
	if bearer != "" {
		bearer = "Bearer " + bearer
	}
	return r.with("Authorization", bearer)
}

// openSessionAs opens a session of whoever a token is about.
func openSessionAs(t *testing.T, url, bearer string) string {
	t.Helper()
	got := mustSend(t, post(url, "", initializeBody("2025-11-25")).as(bearer))
	if got.status != http.StatusOK {
		t.Fatalf("initialize: %s", got)
	}
	return got.header.Get("Mcp-Session-Id")
}

// everyRequest is one of each kind, with a session's token where there is one in it.
func everyRequest(url, session string) map[string]rawRequest {
	listen := rawRequest{method: http.MethodGet, url: url, header: http.Header{"Accept": {"text/event-stream"}, "Mcp-Session-Id": {session}}}
	return map[string]rawRequest{
		"initialize": post(url, "", initializeBody("2025-11-25")),
		"ping":       post(url, session, pingBody),
		"listen":     listen,
		"resume":     listen.with("Last-Event-ID", "g.1.1"),
		"end":        {method: http.MethodDelete, url: url, header: http.Header{"Mcp-Session-Id": {session}}},
		"stateless":  stateless(url, "tools/list"),
	}
}

// Every token but a good one gets nothing, from any replica, with any request, although it comes with the token of a session.
func TestAttacksWithTokensGetNothing(t *testing.T) {
	t.Parallel()
	good, evil := newIssuer(t), newIssuer(t)
	store, upstream := newRedis(t, redisOptions), newUpstream(t)
	d := newDeployment(t, store.URL(), upstream.URL(), asksFor(good, "--auth-clock-skew", "0", "--auth-required-scopes", "tools")...)
	scoped := issuer.Object{"sub": "alice", "scope": "other tools"}
	alice := good.TokenWith(scoped)
	session := openSessionAs(t, d.URL(), alice)
	before := storeKeys(t, store)
	now := time.Now()
	with := func(name string, value any) string {
		return good.TokenWith(issuer.Object{"sub": "alice", "scope": "tools", name: value})
	}
	for name, attack := range map[string]struct {
		bearer string
		status int  // 401 when 0
		isNew  bool // its key may be, so keys are asked for first
	}{
		"no token":                         {},
		"another issuer's token":           {bearer: evil.TokenWith(scoped)},
		"another issuer's, in the name":    {bearer: evil.TokenWith(issuer.Object{"sub": "alice", "scope": "tools", "iss": good.URL()})},
		"one that says another issuer":     {bearer: with("iss", evil.URL())},
		"one for another audience":         {bearer: with("aud", "https://other.example")},
		"one for nobody":                   {bearer: with("aud", nil)},
		"one without a signature":          {bearer: good.Unsigned("alice")},
		"one that brings its own keys":     {bearer: evil.Sign(issuer.Object{"kid": "evil", "jku": evil.URL() + "/keys"}, issuer.Object{"sub": "alice", "iss": good.URL()}), isNew: true},
		"one with a changed signature":     {bearer: alice[:len(alice)-8] + "AAAAAAAA"},
		"one that has expired":             {bearer: with("exp", now.Add(-time.Second).Unix())},
		"one that never expires":           {bearer: with("exp", nil)},
		"one that is not valid yet":        {bearer: with("nbf", now.Add(time.Minute).Unix())},
		"one of more than 8 KiB":           {bearer: with("padding", strings.Repeat("x", 8<<10))},
		"one without the scope":            {bearer: good.TokenWith(issuer.Object{"sub": "alice", "scope": "other"}), status: http.StatusForbidden},
		"one without a subject":            {bearer: with("sub", nil)},
		"the session's token in its place": {bearer: session},
		"something else":                   {bearer: "let-me-in"},
	} {
		want := attack.status
		if want == 0 {
			want = http.StatusUnauthorized
		}
		for _, r := range d.Replicas {
			if attack.isNew {
				eventually(t, 2*revocation, answers(post(r.URL(), session, pingBody).as(attack.bearer), want, ""))
			}
			for kind, request := range everyRequest(r.URL(), session) {
				got := mustSend(t, request.as(attack.bearer))
				if got.status != want || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer ") {
					t.Errorf("%s, %s: %s, want %d with a challenge", name, kind, got, want)
				}
				if got := mustSend(t, request.with("Authorization", "").inQuery("access_token", alice)); got.status != http.StatusUnauthorized {
					t.Errorf("%s with a good token in its URL: %s", kind, got)
				}
			}
		}
	}
	// A stolen session token with a good token of the thief's own.
	mallory := good.TokenWith(issuer.Object{"sub": "mallory", "scope": "tools"})
	for _, r := range d.Replicas {
		for kind, request := range everyRequest(r.URL(), session) {
			if kind == "initialize" || kind == "stateless" {
				continue
			}
			got := mustSend(t, request.as(mallory))
			unknown := mustSend(t, request.as(mallory).with("Mcp-Session-Id", strings.Repeat("a", len(session))))
			if got.status != http.StatusNotFound || got.body != unknown.body {
				t.Errorf("a thief, %s: %s; a session that never was: %s", kind, got, unknown)
			}
		}
	}
	if after := storeKeys(t, store); !slices.Equal(before, after) {
		t.Errorf("the store holds %v, want %v as before", after, before)
	}
	for _, r := range d.Replicas {
		if got := mustSend(t, post(r.URL(), session, pingBody).as(alice)); got.status != http.StatusOK {
			t.Errorf("the session after all that: %s", got)
		}
		for _, secret := range []string{alice, mallory, session} {
			if strings.Contains(r.Output(), secret) {
				t.Error("the log holds a token")
			}
		}
	}
}

// inQuery returns the request with a parameter in its URL.
func (r rawRequest) inQuery(name, value string) rawRequest {
	r.url += "?" + url.Values{name: {value}}.Encode()
	return r
}

// While the issuer's keys cannot be had nobody gets in who was not known; soon after they can, everybody does. Who is known notices
// nothing, also when a flood of tokens names keys that do not exist.
func TestAnIssuersKeyServerMayBeDownSlowOrHostile(t *testing.T) {
	t.Parallel()
	elsewhere := newIssuer(t)
	for name, fault := range map[string]http.HandlerFunc{
		"down":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"slow":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"endless": func(w http.ResponseWriter, r *http.Request) { writeFor(r.Context(), w, `{"keys":[`, "null,") },
		"astray": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL()+"/keys", http.StatusFound)
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>keys</html>")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newIssuer(t)
			i.AnswerWith(fault)
			store, upstream := newRedis(t, redisOptions), newUpstream(t)
			r := launchReplica(t, replica.Options{
				RedisURL: store.URL(), Upstreams: []string{upstream.URL()}, Args: asksFor(i, "--auth-jwks-timeout", "500ms"),
			})
			eventually(t, recovery, isNotReadyFor(r, "keys"))
			initialize := post(r.URL(), "", initializeBody("2025-11-25"))
			for bearer, want := range map[string]int{i.Token("alice"): 503, elsewhere.TokenWith(issuer.Object{"iss": i.URL()}): 503, i.Unsigned("alice"): 401} {
				if got := mustSend(t, initialize.as(bearer)); got.status != want {
					t.Errorf("without keys: %s, want %d", got, want)
				}
			}
			i.AnswerWith(nil)
			if err := r.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			alice := i.Token("alice")
			eventually(t, recovery, answers(initialize.as(alice), 200, ""))
			session := openSessionAs(t, r.URL(), alice)

			i.AnswerWith(fault)
			asked, begun := i.Asked(), time.Now()
			i.Rotate()
			var flood sync.WaitGroup
			for n := range 20 {
				flood.Go(func() {
					got, err := initialize.as(i.Token(fmt.Sprint("mallory-", n))).send(t.Context())
					if err != nil || got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
						t.Errorf("a token of a key that cannot be had: %s, %v", got, err)
					}
				})
			}
			var slowest time.Duration
			for range 50 {
				at := time.Now()
				if got := mustSend(t, post(r.URL(), session, pingBody).as(alice)); got.status != http.StatusOK {
					t.Errorf("who is known: %s", got)
				}
				slowest = max(slowest, time.Since(at))
			}
			flood.Wait()
			if slowest > 400*time.Millisecond {
				t.Errorf("who is known waited for %v", slowest)
			}
			if more, most := i.Asked()-asked, 2+int(time.Since(begun)/(5*time.Second)); more > most {
				t.Errorf("the flood had the keys asked for %d times, want at most %d", more, most)
			}
		})
	}
}

// writeFor writes a text, and another one again and again until ctx is done.
func writeFor(ctx context.Context, w http.ResponseWriter, first, again string) {
	_, err := w.Write([]byte(first))
	for again = strings.Repeat(again, 1000); err == nil && ctx.Err() == nil; {
		_, err = w.Write([]byte(again))
	}
}

// startReplica starts one with options of its own: the product, unless they name another command.
func startReplica(t *testing.T, options replica.Options) *replica.Replica {
	t.Helper()
	r := launchReplica(t, options)
	if err := r.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// launchReplica is startReplica for one that cannot become ready yet.
func launchReplica(t *testing.T, options replica.Options) *replica.Replica {
	t.Helper()
	if options.Executable == "" {
		options.Executable = built(t, productBinary)
	}
	r, err := replica.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	watch(t, r)
	if err := r.Launch(); err != nil {
		t.Fatal(err)
	}
	return r
}

// isNotReadyFor is a probe: a replica has reached its store, and is not ready for want of one thing alone.
func isNotReadyFor(r *replica.Replica, check string) process.Probe {
	return func(ctx context.Context) error {
		got, err := (rawRequest{method: http.MethodGet, url: r.AdminURL("/readyz")}).send(ctx)
		if err != nil {
			return err
		}
		var state struct {
			Checks map[string]struct {
				OK bool `json:"ok"`
			} `json:"checks"`
		}
		if err := json.Unmarshal([]byte(got.body), &state); err != nil {
			return err
		}
		for name, c := range state.Checks {
			if c.OK == (name == check) {
				return fmt.Errorf("/readyz is not as it is without %s: %s", check, got.body)
			}
		}
		if got.status != http.StatusServiceUnavailable {
			return fmt.Errorf("/readyz without %s: %s", check, got)
		}
		return nil
	}
}

// openAll sends as many initialize requests at once, and returns the answers that were 200 and the others.
func openAll(t *testing.T, url, bearer string, count int) (sessions []string, refused []rawAnswer) {
	t.Helper()
	var (
		mu      sync.Mutex
		opening sync.WaitGroup
	)
	for range count {
		opening.Go(func() {
			got, err := post(url, "", initializeBody("2025-11-25")).as(bearer).send(t.Context())
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				t.Error(err)
			case got.status == http.StatusOK:
				sessions = append(sessions, got.header.Get("Mcp-Session-Id"))
			default:
				refused = append(refused, got)
			}
		})
	}
	opening.Wait()
	return sessions, refused
}

func TestACapOfAPrincipalHoldsUnderThreeReplicas(t *testing.T) {
	t.Parallel()
	const most = 5
	i := newIssuer(t)
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL(),
		asksFor(i, "--max-sessions-per-principal", strconv.Itoa(most), "--create-rate-per-principal", "0")...)
	alice, bob := i.Token("alice"), i.Token("bob")
	sessions, refused := openAll(t, d.URL(), alice, 4*most)
	if len(sessions) != most {
		t.Errorf("%d sessions were opened, want %d", len(sessions), most)
	}
	for _, got := range refused {
		if got.status != http.StatusTooManyRequests || got.reason() != "capacity" || got.header.Get("Retry-After") == "" ||
			!strings.Contains(got.body, "max_sessions_per_principal") {
			t.Errorf("over the cap: %s", got)
		}
	}
	if others, refused := openAll(t, d.URL(), bob, most); len(others) != most {
		t.Errorf("somebody else has opened %d sessions, refused %v", len(others), refused)
	}
	for _, session := range sessions { // none of them made room for another
		if got := mustSend(t, post(d.URL(), session, pingBody).as(alice)); got.status != http.StatusOK {
			t.Errorf("a session of who is at the cap: %s", got)
		}
	}
	end := rawRequest{method: http.MethodDelete, url: d.URL(), header: http.Header{"Mcp-Session-Id": {sessions[0]}}}
	if got := mustSend(t, end.as(alice)); got.status != http.StatusNoContent {
		t.Fatalf("DELETE: %s", got)
	}
	if sessions, _ := openAll(t, d.URL(), alice, 3); len(sessions) != 1 {
		t.Errorf("after one has ended %d more were opened, want 1", len(sessions))
	}
}

func TestACreationRateOfAPrincipalHoldsUnderThreeReplicas(t *testing.T) {
	t.Parallel()
	const rate = 5
	i := newIssuer(t)
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL(),
		asksFor(i, "--create-rate-per-principal", strconv.Itoa(rate))...)
	alice, bob := i.Token("alice"), i.Token("bob")
	begun := time.Now()
	var opened int
	for range 4 {
		sessions, refused := openAll(t, d.URL(), alice, 2*rate)
		opened += len(sessions)
		for _, got := range refused {
			if got.status != http.StatusTooManyRequests || got.reason() != "creation_rate" || got.header.Get("Retry-After") == "" ||
				!strings.Contains(got.body, "create_rate_per_principal") {
				t.Errorf("too fast: %s", got)
			}
		}
	}
	most := rate + int(rate*time.Since(begun).Seconds()) + 1
	if opened < rate || opened > most {
		t.Errorf("%d sessions were opened in %v, want %d to %d", opened, time.Since(begun), rate, most)
	}
	if others, refused := openAll(t, d.URL(), bob, rate); len(others) != rate {
		t.Errorf("somebody else has opened %d sessions, refused %v", len(others), refused)
	}
}

// tokens is what an official client asks for tokens: it finds out from the challenge where to get them, as the protocol has it.
type tokens struct {
	issuer   *issuer.Issuer
	resource string
	got      atomic.Pointer[oauth2.Token]
	asked    atomic.Int64
}

func (s *tokens) TokenSource(context.Context) (oauth2.TokenSource, error) {
	token := s.got.Load()
	if token == nil {
		return nil, nil //nolint:nilnil // what the interface wants of who has none yet
	}
	return oauth2.StaticTokenSource(token), nil
}

func (s *tokens) Authorize(ctx context.Context, _ *http.Request, response *http.Response) error {
	defer response.Body.Close()
	s.asked.Add(1)
	challenges, err := oauthex.ParseWWWAuthenticate(response.Header.Values("WWW-Authenticate"))
	if err != nil || len(challenges) != 1 {
		return errors.Join(err, fmt.Errorf("%d challenges", len(challenges)))
	}
	metadata, err := oauthex.GetProtectedResourceMetadata(ctx, challenges[0].Params["resource_metadata"], s.resource, httpClient)
	if err != nil {
		return err
	}
	if !slices.Equal(metadata.AuthorizationServers, []string{s.issuer.URL()}) {
		return fmt.Errorf("the authorization servers are %q", metadata.AuthorizationServers)
	}
	s.got.Store(&oauth2.Token{AccessToken: s.issuer.Token("alice"), TokenType: "Bearer"})
	return nil
}

// The official client starts without a token, is told where to get one, and then has all that there is, from replica to replica.
func TestSDKClientWithATokenThroughThreeReplicas(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	public := newPublicAddress(t)
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL(), asksFor(i, "--auth-resource", public.url)...)
	public.leadTo(d.Front.Address())
	source := &tokens{issuer: i, resource: public.url + "/mcp"}
	c := connect(t, public.url+"/mcp", "", func(transport *mcp.StreamableClientTransport) { transport.OAuthHandler = source })
	exerciseFeatures(t, c)
	if n := source.asked.Load(); n != 1 {
		t.Errorf("the client had to get a token %d times", n)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close the session (DELETE): %v", err)
	}
}

// publicAddress is known before there is anything behind it.
type publicAddress struct {
	url    string
	target atomic.Pointer[string]
}

func newPublicAddress(t *testing.T) *publicAddress {
	t.Helper()
	p := &publicAddress{}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", *p.target.Load()
		},
		FlushInterval: -1,
	})
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	p.url = server.URL
	return p
}

func (p *publicAddress) leadTo(address string) { p.target.Store(&address) }

// A header is believed from the proxies alone, whatever else a request says.
func TestASpoofedHeaderGetsNothing(t *testing.T) {
	t.Parallel()
	const trusted = "127.0.0.2"
	if l, err := net.Listen("tcp", trusted+":0"); err != nil {
		t.Skipf("skipped: this system has no second loopback address: %v", err)
	} else if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL(),
		"--auth-mode", "header", "--auth-header", "X-Forwarded-User", "--auth-trusted-proxies", trusted)
	proxied := &http.Client{Timeout: answerTimeout, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(trusted)}}).DialContext,
	}}
	through := func(r rawRequest) (status int, session string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), r.method, r.url, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = r.header
		response, err := proxied.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close() // only the header matters
		return response.StatusCode, response.Header.Get("Mcp-Session-Id")
	}
	status, session := through(post(d.Replicas[0].URL(), "", initializeBody("2025-11-25")).with("X-Forwarded-User", "alice"))
	if status != http.StatusOK || session == "" {
		t.Fatalf("initialize through the trusted proxy: %d", status)
	}
	for _, r := range d.Replicas {
		for kind, request := range everyRequest(r.URL(), session) {
			for _, spoofed := range []rawRequest{
				request.with("X-Forwarded-User", "alice"),
				request.with("X-Forwarded-User", "alice").with("X-Forwarded-For", trusted).with("X-Real-IP", trusted).with("Forwarded", "for="+trusted),
				request.with("X_Forwarded_User", "alice"),
			} {
				if got := mustSend(t, spoofed); got.status != http.StatusForbidden || got.header.Get("WWW-Authenticate") != "" {
					t.Errorf("%s: %s, want 403 without a challenge", kind, got)
				}
			}
		}
		if got, _ := through(post(r.URL(), session, pingBody).with("X-Forwarded-User", "mallory")); got != http.StatusNotFound {
			t.Errorf("somebody else through the proxy: %d, want 404", got)
		}
		if got, _ := through(post(r.URL(), session, pingBody).with("X-Forwarded-User", "alice")); got != http.StatusOK {
			t.Errorf("its owner through the proxy: %d, want 200", got)
		}
	}
}
