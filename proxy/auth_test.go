package proxy_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/issuer"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

func newIssuer(t *testing.T) *issuer.Issuer {
	t.Helper()
	i := issuer.Start()
	t.Cleanup(i.Close)
	return i
}

// asksFor makes replicas ask for tokens of an issuer.
func asksFor(t *testing.T, i *issuer.Issuer, change ...func(*auth.Config)) func(*proxy.Config) {
	t.Helper()
	cfg := auth.DefaultConfig()
	cfg.Mode, cfg.Issuer, cfg.Audiences, cfg.ClockSkew = auth.ModeJWT, i.URL(), []string{issuer.Audience}, 0
	cfg.Resource, cfg.Paths = "https://mcp.example", []string{"/mcp"}
	for _, c := range change {
		c(&cfg)
	}
	return gated(t, cfg)
}

// gated gives each replica a running gate of its own.
func gated(t *testing.T, cfg auth.Config) func(*proxy.Config) {
	t.Helper()
	return func(c *proxy.Config) {
		g, err := auth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background()) //nolint:usetesting // it must end after the test's own context
		var running sync.WaitGroup
		running.Go(func() { _ = g.Run(ctx) })
		t.Cleanup(func() {
			stop()
			running.Wait()
		})
		c.Auth = g
	}
}

// as returns the request with a bearer token.
func (r request) as(token string) request { return r.with("Authorization", "Bearer "+token) }

// openSessionAs opens a session of a principal.
func (r *replica) openSessionAs(bearer string) string {
	r.t.Helper()
	got := post(r.url, "", initializeBody).as(bearer).send(r.t)
	if got.status != http.StatusOK {
		r.t.Fatalf("initialize: %d %s", got.status, got.body)
	}
	return got.header.Get("Mcp-Session-Id")
}

// inSession are all requests that a client may send in a session, of which it has got some of two streams.
func inSession(url, session string, own, answer *stream) map[string]request {
	return map[string]request{
		"a request":           post(url, session, pingBody),
		"a call":              post(url, session, callBody),
		"a notification":      post(url, session, `{"jsonrpc":"2.0","method":"notifications/initialized"}`),
		"listening":           get(url, session),
		"resuming its stream": get(url, session).with("Last-Event-ID", own.last),
		"resuming an answer":  get(url, session).with("Last-Event-ID", answer.last),
		"ending it":           del(url, session),
	}
}

// unknownToken is a session token that was never given out.
func unknownToken(t *testing.T) string {
	t.Helper()
	token, err := cluster.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	return token.Reveal()
}

// conversation is a session of alice, opened at the first of two replicas, with a stream of its own and one of an answer.
type conversation struct {
	upstream *talker
	a, b     *node
	session  string
	own      *stream
	answer   *stream
	messages chan<- string // of the answer
}

func newConversation(t *testing.T, i *issuer.Issuer) conversation {
	t.Helper()
	messages := make(chan string, 100)
	k := &talker{}
	k.upstream = newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return k.handle(w, r, got)
		}
		answerWith(w, r, messages)
		return true
	})
	c := conversation{upstream: k, messages: messages}
	c.a, c.b = newFleet(t, k.url).nodes(asksFor(t, i))
	alice := i.Token("alice")
	c.session = c.a.openSessionAs(alice)
	c.own = get(c.a.url, c.session).as(alice).stream(t)
	k.say(news(1))
	c.own.wants(news(1))
	c.answer = post(c.a.url, c.session, callBody).as(alice).stream(t)
	send(messages, progress(1))
	c.answer.wants(progress(1))
	return c
}

// wantsToBeUnknown wants a request to be answered like the same one for a session that never was.
func wantsToBeUnknown(t *testing.T, name string, r request, status int) {
	t.Helper()
	names := func(h http.Header) []string { return slices.Sorted(maps.Keys(h)) }
	got, want := r.send(t), r.with("Mcp-Session-Id", unknownToken(t)).send(t)
	if got.status != status || got.status != want.status || got.body != want.body || !slices.Equal(names(got.header), names(want.header)) {
		t.Errorf("%s: %d %s %v; with an unknown session: %d %s %v, want %d", name, got.status, got.body, got.header, want.status, want.body, want.header, status)
	}
}

func TestASessionTokenIsNothingWithoutItsPrincipal(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	c := newConversation(t, i)
	mallory := i.Token("mallory")
	before := len(c.upstream.requests())
	for _, at := range []*node{c.a, c.b, c.a} {
		for name, request := range inSession(at.url, c.session, c.own, c.answer) {
			wantsToBeUnknown(t, name+" with another's token", request.as(mallory), http.StatusNotFound)
			wantsToBeUnknown(t, name+" without a token", request, http.StatusUnauthorized)
		}
	}
	if after := len(c.upstream.requests()); after != before {
		t.Errorf("the upstream got %d of these requests", after-before)
	}
	if status := c.a.status(c.session); status != cluster.StatusActive {
		t.Errorf("the session is %s", status)
	}
	// Its owner noticed nothing.
	c.upstream.say(news(2))
	c.own.wants(news(2))
	send(c.messages, result)
	c.answer.wantsRest(result)
	if got := del(c.b.url, c.session).as(i.Token("alice")).send(t); got.status != http.StatusNoContent {
		t.Errorf("DELETE by its owner: %d %s", got.status, got.body)
	}
}

func TestWithoutATokenThereIsOnlyAChallenge(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	u := newUpstream(t, nil)
	f := newFleet(t, u.url)
	r := f.replica(asksFor(t, i), func(c *proxy.Config) { c.AllowedOrigins = []string{"https://app.example"} })
	list := stateless(r.url, "tools/list", "")
	requests := map[string]request{
		"initialize": post(r.url, "", initializeBody), "a request": post(r.url, unknownToken(t), pingBody), "no session": post(r.url, "", pingBody),
		"no JSON": post(r.url, "", "{"), "GET": get(r.url, unknownToken(t)), "DELETE": del(r.url, unknownToken(t)), "stateless": list,
	}
	const challenge = `Bearer resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp"`
	for name, request := range requests {
		got := request.with("Origin", "https://app.example").send(t)
		if got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != challenge || got.problem().Error.Code != 1401 {
			t.Errorf("%s: %d %q %s", name, got.status, got.header.Get("WWW-Authenticate"), got.body)
		}
		if exposed := got.header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "WWW-Authenticate") {
			t.Errorf("%s: a page may read %q", name, exposed)
		}
		got = request.as(i.TokenWith(issuer.Object{"exp": 1})).send(t)
		if got.status != http.StatusUnauthorized || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), `Bearer error="invalid_token"`) {
			t.Errorf("%s with an expired token: %d %q", name, got.status, got.header.Get("WWW-Authenticate"))
		}
	}
	if got := (request{method: http.MethodOptions, url: r.url, header: http.Header{"Origin": {"https://app.example"}}}).send(t); got.status != http.StatusNoContent ||
		!strings.Contains(got.header.Get("Access-Control-Allow-Headers"), "Authorization") || !strings.Contains(got.header.Get("Access-Control-Allow-Headers"), "MCP-Protocol-Version") {
		t.Errorf("a browser that asks whether it may: %d %v", got.status, got.header)
	}
	if n := len(u.requests()); n > 0 {
		t.Errorf("the upstream got %d of these requests", n)
	}
	reasons := make(map[string]int)
	eventually(t, "all to be counted", func() bool { return len(r.requests()) == 2*len(requests)+1 })
	for _, done := range r.requests() {
		reasons[done.Denied]++
	}
	if want := map[string]int{"missing": len(requests), "expired": len(requests), "": 1}; !maps.Equal(reasons, want) {
		t.Errorf("reasons are %v, want %v", reasons, want)
	}
	if got := list.as(i.Token("alice")).send(t); got.status != http.StatusOK {
		t.Errorf("a stateless request with a token: %d %s", got.status, got.body)
	}
}

func TestNobodyIsLetInWhileTheIssuersKeysAreAway(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	i.AnswerWith(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica(asksFor(t, i))
	got := post(r.url, "", initializeBody).as(i.Token("alice")).send(t)
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || got.header.Get("WWW-Authenticate") != "" || len(u.requests()) > 0 {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
	eventually(t, "it to be counted", func() bool { return len(r.requests()) == 1 })
	if reason := r.requests()[0].Denied; reason != "keys_unavailable" {
		t.Errorf("the reason is %q", reason)
	}
}

// Clients without a token find out where to get one, without one, from whichever page they are.
func TestMetadataIsServedForEachUpstream(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	f := newFleet(t, newUpstream(t, nil).url)
	r := f.replica(asksFor(t, i, func(c *auth.Config) { c.Paths = []string{"/mcp", "/files/mcp"} }), func(c *proxy.Config) {
		c.Upstreams = []proxy.Upstream{{URL: f.upstream}, {Name: "files", URL: f.upstream}}
		c.AllowedOrigins = []string{"https://app.example"}
	})
	for path, resource := range map[string]string{"": "", "/mcp": "/mcp", "/files/mcp": "/files/mcp"} {
		ask := request{
			method: http.MethodGet, url: r.server.URL + "/.well-known/oauth-protected-resource" + path,
			header: http.Header{"Origin": {"https://elsewhere.example"}},
		}
		got := ask.send(t)
		if got.status != http.StatusOK || !strings.Contains(got.body, `"resource":"https://mcp.example`+resource+`"`) ||
			!strings.Contains(got.body, `"authorization_servers":["`+i.URL()+`"]`) || got.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %v %s", path, got.status, got.header, got.body)
		}
		if ask.method = http.MethodOptions; ask.send(t).status != http.StatusNoContent {
			t.Errorf("%s: a browser that asks whether it may is answered with %d", path, got.status)
		}
	}
	got := post(strings.Replace(r.url, "/mcp", "/files/mcp", 1), "", initializeBody).send(t)
	if !strings.HasSuffix(got.header.Get("WWW-Authenticate"), `/.well-known/oauth-protected-resource/files/mcp"`) {
		t.Errorf("the challenge of the second upstream is %q", got.header.Get("WWW-Authenticate"))
	}
	if got := get(r.server.URL+"/.well-known/oauth-protected-resource/other/mcp", "").send(t); got.status != http.StatusNotFound {
		t.Errorf("of no upstream: %d", got.status)
	}
}

// An answer's stream ends with the token that it was asked for with, and goes on with a new one, elsewhere.
func TestAnAnswersStreamEndsWithTheTokenAndGoesOnWithANewOne(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	messages := make(chan string, 100)
	a, b := newFleet(t, streaming(t, messages).url).nodes(asksFor(t, i))
	session := a.openSessionAs(i.Token("alice"))
	end := time.Now().Add(2 * time.Second)
	s := post(a.url, session, callBody).as(i.TokenUntil("alice", end)).stream(t)
	send(messages, progresses(1, 3)...)
	s.wantsRest(progresses(1, 3)...)
	wantsEndAt(t, end)
	if again := s.resume(b.replica, session).as(i.TokenUntil("alice", end)).send(t); again.status != http.StatusUnauthorized {
		t.Errorf("resumed with the expired token: %d %s", again.status, again.body)
	}
	if again := s.resume(b.replica, session).as(i.Token("mallory")).send(t); again.status != http.StatusNotFound {
		t.Errorf("resumed with another's token: %d %s", again.status, again.body)
	}
	rest := append(progresses(4, 6), result)
	send(messages, rest...)
	s.resume(b.replica, session).as(i.Token("alice")).stream(t).wantsRest(rest...)
}

// wantsEndAt wants a stream, which has just ended, to have ended when its token did.
func wantsEndAt(t *testing.T, end time.Time) {
	t.Helper()
	// Tokens tell the time to the millisecond.
	if late := time.Since(end); late < -2*time.Millisecond || late > patience/2 {
		t.Errorf("the stream ended %v after its token", late)
	}
}

func TestAListenersStreamEndsWithTheToken(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	k := newTalker(t)
	f := newFleet(t, k.url)
	a, b := f.nodes(asksFor(t, i))
	session := a.openSessionAs(i.Token("alice"))
	end := time.Now().Add(2 * time.Second)
	s := get(a.url, session).as(i.TokenUntil("alice", end)).stream(t)
	k.say(news(1))
	s.wants(news(1))
	s.wantsRest()
	wantsEndAt(t, end)
	k.say(news(2))
	s.resume(b.replica, session).as(i.Token("alice")).stream(t).wants(news(2))
}

func TestAStatelessStreamEndsWithTheTokenAndAnAnswerDoesNot(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	messages, rest := make(chan string, 10), make(chan string, 1)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		switch got.msg.Method {
		case "tools/call":
			answerWith(w, r, messages)
		case "tools/list":
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0",`)
			flush(w)
			select {
			case text := <-rest:
				_, _ = io.WriteString(w, text)
			case <-r.Context().Done():
			}
		}
		return true
	})
	r := newFleet(t, u.url).replica(asksFor(t, i))
	end := time.Now().Add(2 * time.Second)
	bearer := i.TokenUntil("alice", end)
	s := stateless(r.url, "tools/call", `"name":"long"`).with("Mcp-Name", "long").as(bearer).stream(t)
	send(messages, progress(1))
	s.wants(progress(1))
	slow := stateless(r.url, "tools/list", "").as(bearer).open(t)
	s.wantsRest()
	wantsEndAt(t, end)
	send(rest, `"id":7,"result":{}}`)
	if body, err := io.ReadAll(slow.Body); err != nil || string(body) != `{"jsonrpc":"2.0","id":7,"result":{}}` {
		t.Errorf("the answer is %q, %v", body, err)
	}
}

// What upstreams get to see of who the client is does not depend on what is sent to them, or why.
func TestUpstreamsGetTheConfiguredTokenInEveryRequest(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("of-the-operator\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, action := range []auth.UpstreamToken{"", auth.UpstreamPass, auth.UpstreamStrip, auth.UpstreamReplace} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			i := newIssuer(t)
			k := newTalker(t)
			f := newFleet(t, k.url)
			n := f.node(asksFor(t, i, func(c *auth.Config) {
				if c.UpstreamToken = action; action == auth.UpstreamReplace {
					c.UpstreamTokenFile = file
				}
			}))
			bearer := i.Token("alice")
			want := map[auth.UpstreamToken]string{auth.UpstreamPass: "Bearer " + bearer, auth.UpstreamReplace: "Bearer of-the-operator"}[action]
			session := n.openSessionAs(bearer)
			s := get(n.url, session).as(bearer).stream(t)
			k.say(news(1))
			s.wants(news(1))
			post(n.url, session, call(1, "logging/setLevel", `{"level":"info"}`)).as(bearer).send(t)
			k.lose() // the session, which is recovered, and its stream, which is opened anew
			wantsAnswer(t, post(n.url, session, pingBody).as(bearer).send(t))
			k.say(news(2))
			s.wants(news(2))
			stateless(n.url, "tools/list", "").as(bearer).send(t)
			if got := del(n.url, session).as(bearer).send(t); got.status != http.StatusNoContent {
				t.Errorf("DELETE: %d %s", got.status, got.body)
			}
			methods := make(map[string]int)
			for _, got := range k.requests() {
				methods[got.method+" "+got.msg.Method]++
				if sent := got.header.Get("Authorization"); sent != want {
					t.Errorf("%s %s has the credential %q, want %q", got.method, got.msg.Method, sent, want)
				}
			}
			for name, least := range map[string]int{"POST initialize": 2, "POST notifications/initialized": 1, "POST logging/setLevel": 2, "POST ping": 2, "GET ": 2, "POST tools/list": 1, "DELETE ": 1} {
				if methods[name] < least {
					t.Errorf("%s was sent %d times, want %d: the test has shown less than it should", name, methods[name], least)
				}
			}
			n.sayFarewell(gone("", 1))
			if action != auth.UpstreamReplace {
				want = "" // there is nobody whose it could be
			}
			last := k.requests()[len(k.requests())-1]
			if last.header.Get("Mcp-Session-Id") != "secret-1" || last.header.Get("Authorization") != want {
				t.Errorf("the farewell is %v, want the credential %q", last.header, want)
			}
		})
	}
}

// sayFarewell has a session's upstream told that it has ended, and waits until it is.
func (n *node) sayFarewell(s cluster.Session) {
	n.t.Helper()
	ctx, stop := context.WithCancel(n.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = n.proxy.RunFarewells(ctx) })
	n.proxy.EndUpstream([]cluster.Session{s})
	eventually(n.t, "the farewell", func() bool {
		return strings.Contains(n.log.String(), `msg="upstream answered DELETE" upstream="" session=`+s.ID.String())
	})
	stop()
	running.Wait()
}

// An upstream's challenge asks for a token that it would never get.
func TestAnUpstreamsChallengeComesThroughOnlyWithTheClientsToken(t *testing.T) {
	t.Parallel()
	for action, want := range map[auth.UpstreamToken]string{auth.UpstreamStrip: "", auth.UpstreamPass: "Bearer scope=upstream"} {
		i := newIssuer(t)
		u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, _ recorded) bool {
			w.Header().Set("WWW-Authenticate", "Bearer scope=upstream")
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		r := newFleet(t, u.url).replica(asksFor(t, i, func(c *auth.Config) { c.UpstreamToken = action }))
		list := stateless(r.url, "tools/list", "")
		for _, request := range []request{post(r.url, "", initializeBody), list} {
			if got := request.as(i.Token("alice")).send(t); got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != want {
				t.Errorf("%s: %d %q, want 401 %q", action, got.status, got.header.Get("WWW-Authenticate"), want)
			}
		}
	}
}

func TestATrustedProxyNamesTheClient(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url)
	trusting := func(network string) func(*proxy.Config) {
		cfg := auth.DefaultConfig()
		cfg.Mode, cfg.Header, cfg.TrustedProxies = auth.ModeHeader, "X-Forwarded-User", []netip.Prefix{netip.MustParsePrefix(network)}
		return gated(t, cfg)
	}
	near, far := f.replica(trusting("127.0.0.0/8")), f.replica(trusting("10.0.0.0/8"))
	got := post(near.url, "", initializeBody).with("X-Forwarded-User", "alice").send(t)
	session := got.header.Get("Mcp-Session-Id")
	if got.status != http.StatusOK {
		t.Fatalf("initialize: %d %s", got.status, got.body)
	}
	wantsAnswer(t, post(near.url, session, pingBody).with("X-Forwarded-User", "alice").send(t))
	before := len(k.requests())
	for name, c := range map[string]struct {
		request request
		want    int
	}{
		"somebody else":                       {post(near.url, session, pingBody).with("X-Forwarded-User", "mallory"), 404},
		"nobody":                              {post(near.url, session, pingBody), 403},
		"two at once":                         {post(near.url, session, pingBody).with("X-Forwarded-User", "mallory, alice"), 403},
		"from outside":                        {post(far.url, session, pingBody).with("X-Forwarded-User", "alice"), 403},
		"from outside, with a way to pretend": {post(far.url, session, pingBody).with("X-Forwarded-User", "alice").with("X-Forwarded-For", "10.0.0.1"), 403},
	} {
		if got := c.request.send(t); got.status != c.want {
			t.Errorf("%s: %d %s, want %d", name, got.status, got.body, c.want)
		}
	}
	if after := len(k.requests()); after != before {
		t.Errorf("the upstream got %d of these requests", after-before)
	}
	if got := del(near.url, session).with("X-Forwarded-User", "alice").send(t); got.status != http.StatusNoContent {
		t.Errorf("DELETE: %d %s", got.status, got.body)
	}
	for _, got := range k.requests() {
		if user := got.header.Get("X-Forwarded-User"); user != "alice" {
			t.Errorf("%s %s names %q to the upstream, want alice", got.method, got.msg.Method, user)
		}
	}
}

// Whoever has as many sessions as one may is told that it is about them: the cluster has room for others.
func TestACallerAtItsOwnCapOfSessionsIsToldSo(t *testing.T) {
	t.Parallel()
	f := newFleet(t, newUpstream(t, nil).url, func(c *cluster.Config) { c.MaxSessionsPerPrincipal = 1 })
	cfg := auth.DefaultConfig()
	cfg.Mode, cfg.Header, cfg.TrustedProxies = auth.ModeHeader, "X-Forwarded-User", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	initialize := post(f.replica(gated(t, cfg)).url, "", initializeBody)
	for _, name := range []string{"alice", "bob"} {
		if got := initialize.with("X-Forwarded-User", name).send(t); got.status != http.StatusOK {
			t.Errorf("the first session of %s: %d %s", name, got.status, got.body)
		}
		got := initialize.with("X-Forwarded-User", name).send(t)
		p := got.problem()
		if got.status != http.StatusTooManyRequests || p.Error.Code != 1429 || p.Error.Data.Reason != "capacity" || p.Error.Data.Limit != "max_sessions_per_principal" ||
			got.header.Get("Retry-After") == "" {
			t.Errorf("the second session of %s: %d %s", name, got.status, got.body)
		}
	}
}
