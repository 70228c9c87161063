package proxy_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

func call(id int, method, params string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`, id, method, params)
}

// wantsAnswer wants a request to succeed.
func wantsAnswer(t *testing.T, got answer) {
	t.Helper()
	if got.status != http.StatusOK || !strings.Contains(got.body, `"result"`) {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestASessionThatItsUpstreamHasLostIsMadeAnew(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k)
	for i, body := range []string{
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
		call(1, "logging/setLevel", `{"level":"info"}`),
		call(2, "logging/setLevel", `{"level":"debug"}`),
		call(3, "resources/subscribe", `{"uri":"file:///a"}`),
		call(4, "resources/subscribe", `{"uri":"file:///b"}`),
		call(5, "resources/unsubscribe", `{"uri":"file:///a"}`),
		call(6, "tools/call", `{"name":"x"}`),
	} {
		at := []*node{a, b}[i%2]
		if got := post(at.url, token, body).send(t); got.status != http.StatusOK && got.status != http.StatusAccepted {
			t.Fatalf("%s: %d %s", body, got.status, got.body)
		}
	}
	for round := range 2 {
		before := len(k.requests())
		k.lose()
		wantsAnswer(t, post(b.url, token, call(7, "tools/call", `{"name":"y"}`)).send(t)) // 404 says that nothing came of it
		var heard []string
		for _, got := range k.requests()[before:] {
			heard = append(heard, got.msg.Method)
			switch got.msg.Method {
			case "initialize":
				if !strings.Contains(got.body, `"clientInfo":{"name":"test"`) || got.header.Get("Mcp-Session-Id")+got.header.Get("Mcp-Protocol-Version") != "" {
					t.Errorf("initialize is %s, %v", got.body, got.header)
				}
			case "logging/setLevel":
				if !strings.Contains(got.body, "debug") {
					t.Errorf("the level is set by %s", got.body)
				}
			case "resources/subscribe":
				if !strings.Contains(got.body, "file:///b") {
					t.Errorf("the subscription is %s", got.body)
				}
			}
			if got.msg.Method != "initialize" && got.header.Get("Mcp-Protocol-Version") == "" && heard[len(heard)-1] != "tools/call" {
				t.Errorf("%s has no protocol version", got.msg.Method)
			}
		}
		want := []string{"tools/call", "ping", "initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe", "tools/call"}
		if !slices.Equal(heard, want) {
			t.Errorf("the upstream heard %v, want %v", heard, want)
		}
		wantsAnswer(t, post(a.url, token, pingBody).send(t)) // the other replica finds that out
		if sessions := k.sessions(); sessions != 2+round {
			t.Errorf("the upstream has had %d sessions", sessions)
		}
	}
	if n := a.recoveries() + b.recoveries(); n != 2 {
		t.Errorf("%d recoveries were audited", n)
	}
}

// Of all who find a session lost, at whichever replica, one makes it anew.
func TestOneOfManyMakesASessionAnew(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f, a, b, token := listening(t, k)
	c := f.node()
	nodes := []*node{a, b, c}
	for _, n := range nodes {
		wantsAnswer(t, post(n.url, token, pingBody).send(t))
	}
	k.lose()
	var sending sync.WaitGroup
	for i := range 60 {
		sending.Go(func() {
			wantsAnswer(t, post(nodes[i%3].url, token, call(i+10, "tools/call", `{}`)).send(t))
		})
	}
	sending.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	open := 0
	for _, s := range k.made {
		if !s.lost {
			open++
		}
	}
	if open != 1 || len(k.made) != 2 {
		t.Errorf("the upstream has had %d sessions, %d are open; want 2 and 1", len(k.made), open)
	}
	ran := 0
	for _, h := range k.heard {
		if h == k.latest().id+" tools/call" {
			ran++
		}
	}
	if ran != 60 {
		t.Errorf("%d calls ran, want 60", ran)
	}
	if n := a.recoveries() + b.recoveries() + c.recoveries(); n != 1 {
		t.Errorf("%d recoveries were audited", n)
	}
}

func TestASessionThatCannotBeMadeAnewFails(t *testing.T) {
	t.Parallel()
	for name, initAs := range map[string]string{
		"another revision": strings.Replace(initialized, "2025-11-25", "2025-06-18", 1),
		"refused":          `{"jsonrpc":"2.0","id":"init","error":{"code":-32602,"message":"no"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			_, a, b, token := listening(t, k)
			k.mu.Lock()
			k.initAs = func(w http.ResponseWriter, _ recorded) bool {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Mcp-Session-Id", "another-one")
				_, _ = io.WriteString(w, initAs)
				return true
			}
			k.mu.Unlock()
			k.lose()
			got := post(a.url, token, pingBody).send(t)
			if p := got.problem(); got.status != http.StatusNotFound || p.Error.Data.Reason != "session_not_found" || len(p.ID) != 0 {
				t.Errorf("%d %s", got.status, got.body)
			}
			if status := a.status(token); status != cluster.StatusFailed {
				t.Errorf("the session is %s", status)
			}
			if slices.ContainsFunc(k.requests(), func(got recorded) bool {
				return got.msg.Method == "ping" && got.header.Get("Mcp-Session-Id") == "another-one"
			}) {
				t.Error("the request was sent in the new upstream session")
			}
			eventually(t, "404 everywhere", func() bool { return post(b.url, token, pingBody).send(t).status == http.StatusNotFound })
			if name == "another revision" {
				eventually(t, "the new upstream session to be ended", func() bool {
					return slices.ContainsFunc(k.requests(), func(got recorded) bool {
						return got.method == http.MethodDelete && got.header.Get("Mcp-Session-Id") == "another-one"
					})
				})
			}
		})
	}
}

// What is wrong with a request does not pass.
func TestASessionWhoseInitializeIsRefusedForGoodFails(t *testing.T) {
	t.Parallel()
	for _, status := range []int{
		http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusUnprocessableEntity,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			_, a, _, token := listening(t, k)
			tried := k.initializesAs(status, nil)
			k.lose()
			got := post(a.url, token, callBody).send(t)
			if p := got.problem(); got.status != http.StatusNotFound || p.Error.Data.Reason != "session_not_found" {
				t.Errorf("%d %s", got.status, got.body)
			}
			if a.status(token) != cluster.StatusFailed || tried.Load() != 1 {
				t.Errorf("the session is %s after %d initializes, want failed after 1", a.status(token), tried.Load())
			}
		})
	}
}

// With other credentials the same client may make its session anew.
func TestASessionOutlivesThatItsUpstreamDeniesItsClient(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			_, a, b, token := listening(t, k)
			tried := k.initializesAs(status, http.Header{"Www-Authenticate": {`Bearer scope="x"`, "Basic"}})
			k.lose()
			got := post(a.url, token, callBody).send(t)
			if got.status != status || got.header.Get("Www-Authenticate") != `Bearer scope="x", Basic` || string(got.problem().ID) == "" {
				t.Errorf("%d %v %s", got.status, got.header, got.body)
			}
			if got := get(a.url, token).send(t); got.status != status || got.header.Get("Www-Authenticate") == "" {
				t.Errorf("GET: %d %v %s", got.status, got.header, got.body)
			}
			if a.status(token) != cluster.StatusActive || tried.Load() != 2 {
				t.Errorf("the session is %s after %d initializes, want active after 2", a.status(token), tried.Load())
			}
			k.mu.Lock()
			k.initAs = nil
			k.mu.Unlock()
			wantsAnswer(t, post(b.url, token, callBody).send(t))
		})
	}
}

// initializesAs has a talker answer initialize with a status, and counts that.
func (k *talker) initializesAs(status int, header http.Header) *atomic.Int32 {
	var tried atomic.Int32
	k.mu.Lock()
	defer k.mu.Unlock()
	k.initAs = func(w http.ResponseWriter, _ recorded) bool {
		tried.Add(1)
		maps.Copy(w.Header(), header)
		w.WriteHeader(status)
		return true
	}
	return &tried
}

func TestASessionOutlivesThatItsUpstreamIsAway(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"it answers initialize with 503", "nothing listens"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			target := newGate(t, k.address())
			f := newFleet(t, "http://"+target.address()+"/endpoint")
			a, b := f.nodes()
			token := a.openSession()
			var tried atomic.Int32
			setInit := func(as func(http.ResponseWriter, recorded) bool) {
				k.mu.Lock()
				defer k.mu.Unlock()
				k.initAs = as
			}
			if name == "nothing listens" {
				target.remove()
			} else {
				setInit(func(w http.ResponseWriter, _ recorded) bool {
					tried.Add(1)
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				})
			}
			k.lose()
			begun := time.Now()
			got := post(a.url, token, pingBody).send(t)
			if p := got.problem(); got.status != http.StatusServiceUnavailable || p.Error.Data.Reason != "upstream_unavailable" || got.header.Get("Retry-After") == "" {
				t.Errorf("%d %v %s", got.status, got.header, got.body)
			}
			if took := time.Since(begun); took < 2500*time.Millisecond {
				t.Errorf("it was given up after %s, want three seconds", took)
			}
			if status := a.status(token); status != cluster.StatusActive {
				t.Errorf("the session is %s", status)
			}
			if n := tried.Load(); name != "nothing listens" && n != 4 {
				t.Errorf("initialize was sent %d times, want 4", n)
			}
			setInit(nil)
			if name == "nothing listens" {
				newGateAt(t, target.address(), k.address())
			}
			eventually(t, "the session to go on", func() bool { return post(b.url, token, pingBody).send(t).status == http.StatusOK })
		})
	}
}

// A request whose connection broke is repeated only when that does no harm.
func TestOnlyHarmlessRequestsAreRepeated(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Initializes || got.msg.Kind != mcp.KindRequest || asked.Add(1) > 1 {
			return false
		}
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return true
	})
	r := newFleet(t, u.url).node()
	token := r.openSession()
	for method, repeats := range map[string]bool{
		"ping": true, "tools/list": true, "resources/list": true, "resources/templates/list": true, "prompts/list": true, "resources/read": true,
		"prompts/get": true, "completion/complete": true, "tools/call": false, "logging/setLevel": false, "resources/subscribe": false, "made/up": false,
	} {
		asked.Store(0)
		got := post(r.url, token, call(7, method, "{}")).send(t)
		if repeats {
			wantsAnswer(t, got)
		} else {
			wantsMayHaveRun(t, []string{got.body}, "7")
		}
		want := int32(1)
		if repeats {
			want = 2
		}
		if asked.Load() != want {
			t.Errorf("%s: the upstream was asked %d times, want %d", method, asked.Load(), want)
		}
	}
	if n := r.recoveries(); n != 0 {
		t.Errorf("the session was recovered %d times for nothing", n)
	}
}

func TestASessionMovesWhenItsEndpointIsGone(t *testing.T) {
	t.Parallel()
	talkers := []*talker{newTalker(t), newTalker(t)}
	gates, hosts := make([]*gate, 2), make([]string, 2)
	for i, k := range talkers {
		gates[i] = newGate(t, k.address())
		hosts[i] = gates[i].address()
	}
	f := newFleet(t, "http://"+hosts[0]+"/endpoint")
	more := newFleet(t, "http://"+hosts[1]+"/endpoint").upstream
	a, b := f.nodes(func(c *proxy.Config) { c.Upstreams[0].More = append(c.Upstreams[0].More, more) })
	token := a.openSession()
	parsed, _ := cluster.ParseToken(token)
	endpoint := func() string {
		s, err := b.manager.Get(t.Context(), parsed.ID)
		if err != nil {
			t.Fatal(err)
		}
		return s.Endpoint
	}
	old := endpoint()
	gone := slices.Index(hosts, old)
	gates[gone].remove()
	for _, at := range []*node{b, a, b} {
		wantsAnswer(t, post(at.url, token, call(7, "tools/call", "{}")).send(t)) // it was never sent
	}
	if now := endpoint(); now != hosts[1-gone] {
		t.Errorf("the session is at %s, want %s", now, hosts[1-gone])
	}
	if n := a.recoveries() + b.recoveries(); n != 1 {
		t.Errorf("%d recoveries were audited", n)
	}
	if sessions := talkers[1-gone].sessions(); sessions != 1 {
		t.Errorf("the other endpoint has had %d sessions", sessions)
	}
}

// A server that has lost its sessions may be one that opens none either.
func TestASessionIsMadeAnewElsewhereWhenItsEndpointHangs(t *testing.T) {
	t.Parallel()
	var fails [2]atomic.Bool
	upstreams, configure := several(t, 2, func(i int) handler {
		return func(w http.ResponseWriter, r *http.Request, got recorded) bool {
			switch {
			case !fails[i].Load():
				return false
			case got.msg.Initializes:
				<-r.Context().Done()
			default:
				w.WriteHeader(http.StatusNotFound)
			}
			return true
		}
	})
	f := newFleet(t, upstreams[0].url)
	a, b := f.nodes(configure, func(c *proxy.Config) { c.InitializeTimeout = 3 * time.Second })
	token := a.openSession()
	old := a.endpointOf(token, upstreams)
	fails[old].Store(true)
	for _, at := range []*node{a, b, a} {
		wantsAnswer(t, post(at.url, token, callBody).send(t))
	}
	if at := b.endpointOf(token, upstreams); at != 1-old {
		t.Errorf("the session is at endpoint %d, want %d", at, 1-old)
	}
}

func TestWithoutRecoveryALostSessionIsNotFound(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k, func(c *proxy.Config) { c.NoRecover = true })
	post(a.url, token, call(1, "logging/setLevel", `{"level":"info"}`)).send(t)
	k.lose()
	for _, at := range []*node{a, b} {
		got := post(at.url, token, pingBody).send(t)
		if p := got.problem(); got.status != http.StatusNotFound || p.Error.Data.Reason != "session_not_found" {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	if status := a.status(token); status != cluster.StatusFailed {
		t.Errorf("the session is %s", status)
	}
	if sessions := k.sessions(); sessions != 1 {
		t.Errorf("the upstream was initialized %d times", sessions)
	}
}

func TestNoSessionIsRecoveredWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k)
	wantsAnswer(t, post(a.url, token, pingBody).send(t))
	a.gate.shut()
	k.lose()
	got := post(a.url, token, pingBody).send(t)
	if p := got.problem(); got.status != http.StatusServiceUnavailable || p.Error.Data.Reason != "store_unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", got.status, got.body)
	}
	a.gate.open()
	for _, at := range []*node{a, b} {
		eventually(t, "the session to go on", func() bool { return post(at.url, token, pingBody).send(t).status == http.StatusOK })
	}
	if sessions := k.sessions(); sessions != 2 {
		t.Errorf("the upstream was initialized %d times", sessions)
	}
}

// Some servers answer initialize, and other requests, with a stream that they leave open.
func TestAnUpstreamThatLeavesItsStreamsOpenHoldsUpNothing(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		answered := taker{header: http.Header{}}
		switch {
		case got.msg.Kind == mcp.KindRequest && got.msg.Initializes:
			k.handle(&answered, r, got)
		case got.msg.Kind != mcp.KindRequest || k.handle(&answered, r, got):
			return k.handle(w, r, got)
		default:
			answered.header.Set("Mcp-Session-Id", got.header.Get("Mcp-Session-Id"))
			answered.body.WriteString(`{"jsonrpc":"2.0","id":` + string(got.msg.ID) + `,"result":{}}`)
		}
		w.Header().Set("Mcp-Session-Id", answered.header.Get("Mcp-Session-Id"))
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: "+answered.body.String()+"\n\n")
		flush(w)
		<-r.Context().Done()
		return true
	})
	r := newFleet(t, u.url).node(func(c *proxy.Config) { c.InitializeTimeout = 2 * time.Second })
	q := post(r.url, "", initializeBody).stream(t)
	token := q.Header.Get("Mcp-Session-Id")
	q.message()
	q.drop()
	k.lose()
	begun := time.Now()
	s := post(r.url, token, pingBody).stream(t)
	if got := s.message(); !strings.Contains(got, `"result"`) {
		t.Errorf("the answer is %s", got)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("that took %v", took)
	}
	s.drop()
}

// taker takes an answer.
type taker struct {
	header http.Header
	body   strings.Builder
}

func (h *taker) Header() http.Header         { return h.header }
func (h *taker) Write(b []byte) (int, error) { return h.body.Write(b) }
func (h *taker) WriteHeader(int)             {}

// net/http would send a request again by itself that has one of these headers.
func TestWhatClientsCallIdempotentIsNotRepeatedEither(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return false
		}
		asked.Add(1)
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return true
	})
	r := newFleet(t, u.url).node()
	token := r.openSession()
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		asked.Store(0)
		wantsAnswer(t, post(r.url, token, call(6, "ping", "{}")).send(t)) // there is a connection to use again
		got := post(r.url, token, call(7, "tools/call", "{}")).with(name, "k").send(t)
		wantsMayHaveRun(t, []string{got.body}, "7")
		requests := u.requests()
		if asked.Load() != 1 || requests[len(requests)-1].header.Get(name) != "k" {
			t.Errorf("%s: the upstream was asked %d times, with %v", name, asked.Load(), requests[len(requests)-1].header)
		}
	}
}

// A client's answer belongs to the upstream session that has asked, and to no other.
func TestAnAnswerToALostSessionReachesNoOther(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, b, token := listening(t, k)
	k.lose()
	before := len(k.requests())
	if got := post(b.url, token, `{"jsonrpc":"2.0","id":1,"result":{"to":"the first"}}`).send(t); got.status != http.StatusAccepted {
		t.Errorf("%d %s", got.status, got.body)
	}
	wantsAnswer(t, post(a.url, token, call(7, "tools/call", "{}")).send(t)) // it recovers the session
	answers := 0
	for _, got := range k.requests()[before:] {
		if strings.Contains(got.body, "the first") {
			answers++
		}
	}
	if answers != 1 {
		t.Errorf("the answer reached the upstream %d times, want 1: the time that it was answered with 404", answers)
	}
}

// A failover of the store may lose a recovery, of which a replica and the client know. The next one, at another replica, counts for all.
func TestARecoveryThatTheStoreHasLostIsFollowedByNobody(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.RequestRate = 0 })
	a, b := f.nodes()
	token := a.openSession()
	wantsAnswer(t, post(b.url, token, pingBody).send(t))
	s := listen(t, a, token)
	k.lose()
	var asked string
	f.loses(token, func() {
		wantsAnswer(t, post(a.url, token, callBody).send(t))
		k.say(question("1"))
		asked = s.message()
	})
	wantsAnswer(t, post(b.url, token, callBody).send(t)) // the first upstream session is lost, and b knows of no other
	if sessions := k.sessions(); sessions != 3 {
		t.Fatalf("the upstream has had %d sessions, want 3", sessions)
	}
	third := k.latest().id
	wantsTaken(t, post(b.url, token, answered(idOf(t, asked), "too late")).send(t))
	if got := k.told("too late"); len(got) > 0 {
		t.Errorf("another upstream session than the one that has asked was told %q", got)
	}
	eventually(t, "both replicas to serve with the third upstream session", func() bool {
		for _, at := range []*node{a, b} {
			wantsAnswer(t, post(at.url, token, callBody).send(t))
			if requests := k.requests(); requests[len(requests)-1].header.Get("Mcp-Session-Id") != third {
				return false
			}
		}
		return true
	})
	k.say(news(1))
	s.wants(news(1))
}

// Who reads the stream of an upstream session that the store has lost reads that of the one that the store names instead, where that lives.
func TestAReaderFollowsAStoreThatHasLostARecovery(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	f := newFleet(t, k.url, func(c *cluster.Config) { c.RequestRate = 0 })
	a, b := f.nodes()
	token := a.openSession()
	s := listen(t, a, token)
	k.say(news(1))
	s.wants(news(1))
	k.lose()
	f.loses(token, func() {
		wantsAnswer(t, post(a.url, token, callBody).send(t))
		k.say(news(2))
		s.wants(news(2))
	})
	k.returnFirst()
	wantsAnswer(t, post(b.url, token, callBody).send(t))
	k.say(news(3))
	s.wants(news(3))
}
