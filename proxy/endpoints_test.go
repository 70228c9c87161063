package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// several makes upstreams, and what configures a replica with all of them as endpoints of one.
func several(t *testing.T, n int, handle func(i int) handler) ([]*upstream, func(*proxy.Config)) {
	t.Helper()
	upstreams := make([]*upstream, n)
	urls := make([]*url.URL, n)
	for i := range upstreams {
		upstreams[i] = newUpstream(t, handle(i))
		target, err := url.Parse(upstreams[i].url)
		if err != nil {
			t.Fatal(err)
		}
		urls[i] = target
	}
	return upstreams, func(c *proxy.Config) {
		c.Upstreams = []proxy.Upstream{{URL: urls[0], More: urls[1:]}}
	}
}

func asUsual(int) handler { return nil }

// counts tells how many requests of a method each upstream got.
func counts(upstreams []*upstream, method string) []int {
	n := make([]int, len(upstreams))
	for i, u := range upstreams {
		for _, got := range u.requests() {
			if got.method == method {
				n[i]++
			}
		}
	}
	return n
}

func TestASessionStaysAtItsEndpointWhicheverReplicaServesIt(t *testing.T) {
	t.Parallel()
	upstreams, configure := several(t, 3, asUsual)
	f := newFleet(t, upstreams[0].url)
	first, second := f.replica(configure), f.replica(configure)
	used := 0
	for range 12 {
		before := counts(upstreams, http.MethodPost)
		token := first.openSession()
		for range 3 {
			for _, r := range []*replica{first, second} {
				if got := post(r.url, token, pingBody).send(t); got.status != http.StatusOK {
					t.Fatalf("ping: %d %s", got.status, got.body)
				}
			}
		}
		if got := del(second.url, token).send(t); got.status != http.StatusNoContent {
			t.Fatalf("DELETE: %d %s", got.status, got.body)
		}
		served := 0
		for i, n := range counts(upstreams, http.MethodPost) {
			switch n - before[i] {
			case 0:
			case 7:
				served++
				used |= 1 << i
			default:
				t.Errorf("endpoint %d got %d of the session's 7 requests", i, n-before[i])
			}
		}
		if served != 1 {
			t.Errorf("%d endpoints served one session", served)
		}
	}
	if used != 7 {
		t.Errorf("12 sessions were spread over the endpoints %03b, want all three", used)
	}
	for i, n := range counts(upstreams, http.MethodDelete) {
		if got := upstreams[i].ended(); got != n || counts(upstreams, http.MethodPost)[i] != 7*n {
			t.Errorf("endpoint %d heard %d farewells for %d sessions", i, n, counts(upstreams, http.MethodPost)[i]/7)
		}
	}
}

func TestSessionsAreOpenedWhereSomethingAnswers(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, nil)
	alive, _ := url.Parse(up.url)
	dead, _ := url.Parse(deadAddress(t) + "/endpoint")
	r := newFleet(t, up.url).replica(func(c *proxy.Config) {
		c.Upstreams = []proxy.Upstream{{URL: dead, More: []*url.URL{alive}}}
	})
	refused := 0
	for range 20 {
		switch got := post(r.url, "", initializeBody).send(t); got.status {
		case http.StatusOK:
		case http.StatusServiceUnavailable:
			refused++
		default:
			t.Errorf("initialize: %d %s", got.status, got.body)
		}
	}
	if refused > 2 {
		t.Errorf("%d of 20 sessions were tried at an endpoint where nothing answers, want 2 at most", refused)
	}
}

// hanging makes two endpoints, which leave everything unanswered once they are told to, and what configures a replica with them.
func hanging(t *testing.T) (upstreams []*upstream, isHung *[2]atomic.Bool, configure func(*proxy.Config)) {
	t.Helper()
	isHung = new([2]atomic.Bool)
	upstreams, configure = several(t, 2, func(i int) handler {
		return func(_ http.ResponseWriter, r *http.Request, _ recorded) bool {
			if !isHung[i].Load() {
				return false
			}
			<-r.Context().Done()
			return true
		}
	})
	return upstreams, isHung, configure
}

// endpointOf is which of several upstreams a session's record names.
func (r *replica) endpointOf(token string, upstreams []*upstream) int {
	r.t.Helper()
	parsed, err := cluster.ParseToken(token)
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := r.manager.Get(r.t.Context(), parsed.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.IndexFunc(upstreams, func(u *upstream) bool { return u.url == "http://"+s.Endpoint+"/endpoint" })
}

func TestSessionsAreOpenedElsewhereWhenAnEndpointHangs(t *testing.T) {
	t.Parallel()
	upstreams, hung, configure := hanging(t)
	r := newFleet(t, upstreams[0].url, func(c *cluster.Config) { c.CreateRate = 0 }).replica(configure, func(c *proxy.Config) { c.InitializeTimeout = 4 * time.Second })
	hung[1].Store(true)
	var opening sync.WaitGroup
	for range 12 {
		opening.Go(func() {
			if got := post(r.url, "", initializeBody).send(t); got.status != http.StatusOK {
				t.Errorf("initialize: %d %s", got.status, got.body)
			}
		})
	}
	opening.Wait()
	before := len(upstreams[1].requests())
	for range 20 {
		if at := r.endpointOf(r.openSession(), upstreams); at != 0 {
			t.Errorf("a session is at endpoint %d", at)
		}
	}
	if again := len(upstreams[1].requests()) - before; again > 2 { // one after each pause
		t.Errorf("%d of 20 sessions were tried where nothing was answered before", again)
	}
}

func TestSessionsAreOpenedWhereThereAreNoServerErrors(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable} {
		upstreams, configure := several(t, 2, func(i int) handler {
			return func(w http.ResponseWriter, _ *http.Request, _ recorded) bool {
				if i == 1 {
					w.WriteHeader(status)
				}
				return i == 1
			}
		})
		r := newFleet(t, upstreams[0].url, func(c *cluster.Config) { c.CreateRate = 0 }).replica(configure)
		failed := 0
		for range 40 {
			switch got := post(r.url, "", initializeBody).send(t); got.status {
			case http.StatusOK:
			case status:
				failed++
			default:
				t.Errorf("initialize: %d %s", got.status, got.body)
			}
		}
		if failed > 4 {
			t.Errorf("%d of 40 sessions were tried where initialize is answered with %d, want two, and one after each pause", failed, status)
		}
	}
}

func TestSessionsLeaveAnEndpointThatAnswersNoChecks(t *testing.T) {
	t.Parallel()
	upstreams, hung, configure := hanging(t)
	r := newFleet(t, upstreams[0].url).node(configure, func(c *proxy.Config) {
		c.CheckInterval, c.CheckTimeout = 20*time.Millisecond, 200*time.Millisecond
	})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.proxy.RunEndpoints(ctx) })
	defer running.Wait()
	defer stop()

	token := r.openSession()
	old := r.endpointOf(token, upstreams)
	hung[old].Store(true)
	var waiting sync.WaitGroup
	waiting.Go(func() { wantsAnswer(t, post(r.url, token, pingBody).send(t)) })
	waiting.Go(func() { wantsAnswer(t, stateless(r.url, "tools/list", "").send(t)) })
	waiting.Go(func() { wantsAnswer(t, post(r.url, "", initializeBody).send(t)) })
	defer waiting.Wait()
	eventually(t, "the checks to find out", func() bool { return strings.Contains(r.log.String(), "upstream endpoint ails") })
	for range 3 {
		wantsAnswer(t, post(r.url, token, callBody).send(t)) // it was never sent to the one that hangs
	}
	if at := r.endpointOf(token, upstreams); at != 1-old {
		t.Errorf("the session is at endpoint %d, want %d", at, 1-old)
	}
	if n := r.recoveries(); n != 1 {
		t.Errorf("%d recoveries were audited", n)
	}
	for range 10 {
		if at := r.endpointOf(r.openSession(), upstreams); at != 1-old {
			t.Errorf("a new session is at endpoint %d", at)
		}
	}
	hung[old].Store(false)
	eventually(t, "sessions at the endpoint that answers again", func() bool { return r.endpointOf(r.openSession(), upstreams) == old })
}

func TestSessionsThatAreDeletedMakeRoomAtTheirEndpoint(t *testing.T) {
	t.Parallel()
	upstreams, configure := several(t, 2, asUsual)
	r := newFleet(t, upstreams[0].url, func(c *cluster.Config) { c.CreateRate = 0 }).replica(configure)
	at := make([][]string, 2)
	for range 20 {
		token := r.openSession()
		i := r.endpointOf(token, upstreams)
		at[i] = append(at[i], token)
	}
	for _, token := range at[0] {
		if got := del(r.url, token).send(t); got.status != http.StatusNoContent {
			t.Fatalf("DELETE: %d %s", got.status, got.body)
		}
	}
	for range len(at[1]) {
		if i := r.endpointOf(r.openSession(), upstreams); i != 0 {
			t.Errorf("a session is at endpoint %d, which has %d, while the other has fewer", i, len(at[1]))
		}
	}
}

func TestRequestsWithoutASessionGoToAnyEndpoint(t *testing.T) {
	t.Parallel()
	upstreams, configure := several(t, 2, asUsual)
	r := newFleet(t, upstreams[0].url).replica(configure)
	for range 40 {
		got := stateless(r.url, "tools/list", "").send(t)
		if got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if n := counts(upstreams, http.MethodPost); n[0] == 0 || n[1] == 0 {
		t.Errorf("the endpoints got %d requests", n)
	}
}

func TestFarewellsGoToTheSessionsEndpoint(t *testing.T) {
	t.Parallel()
	upstreams, configure := several(t, 3, asUsual)
	cfg := proxy.Config{}
	configure(&cfg)
	p, err := proxy.New(newFleet(t, upstreams[0].url).replica().manager, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = p.RunFarewells(ctx) })
	defer running.Wait()
	defer stop()

	lost := gone("", 1)
	lost.Endpoint = "10.9.9.9:1" // nobody's: what could not be reached there is no other endpoint's business
	here := gone("", 1)
	here.UpstreamSession = upstreamSession
	here.Endpoint = strings.TrimSuffix(strings.TrimPrefix(upstreams[1].url, "http://"), "/endpoint")
	p.EndUpstream([]cluster.Session{lost, here})
	eventually(t, "the farewell", func() bool { return upstreams[1].ended() == 1 })
	if n := counts(upstreams, http.MethodDelete); n[0]+n[1]+n[2] != 1 {
		t.Errorf("the endpoints heard %d farewells", n)
	}
}

// addressBook is a resolver that knows one name.
type addressBook map[string][]netip.Addr

func (b addressBook) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return b[host], nil
}

// listenSide listens on the same port of two addresses of this machine.
func listenSide(t *testing.T) [2]net.Listener {
	t.Helper()
	for range 20 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(first.Addr().String())
		second, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", port))
		if err == nil {
			return [2]net.Listener{first, second}
		}
		first.Close()
	}
	t.Skip("skipped: this machine has no address 127.0.0.2")
	panic("not reached")
}

// An upstream's certificate is for its name, and so is the Host header, whatever the address; connections to two addresses are
// not mixed.
func TestTheAddressesOfANameAreSpokenToByTheName(t *testing.T) {
	t.Parallel()
	type seen struct{ host, serverName string }
	var mu sync.Mutex
	heard := make(map[string]map[seen]int) // by address
	listeners := listenSide(t)
	var certificate *x509.Certificate
	for _, l := range listeners {
		up := newUpstream(t, nil)
		target, _ := url.Parse(up.url)
		address := l.Addr().String()
		heard[address] = make(map[seen]int)
		onward := httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			heard[address][seen{r.Host, r.TLS.ServerName}]++
			mu.Unlock()
			onward.ServeHTTP(w, r)
		}))
		server.Listener.Close()
		server.Listener = l
		server.EnableHTTP2 = true
		server.StartTLS()
		t.Cleanup(server.Close)
		certificate = server.Certificate() // both have the same, for example.com among others
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	_, port, _ := net.SplitHostPort(listeners[0].Addr().String())
	book := addressBook{
		"example.com":   {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")},
		"wrong.invalid": {netip.MustParseAddr("127.0.0.1")},
	}
	r := newFleet(t, "http://unused.invalid/").replica(func(c *proxy.Config) {
		c.Upstreams = []proxy.Upstream{
			{URL: &url.URL{Scheme: "dns+https", Host: "example.com:" + port, Path: "/mcp"}},
			{Name: "wrong", URL: &url.URL{Scheme: "dns+https", Host: "wrong.invalid:" + port, Path: "/mcp"}},
			{Name: "nowhere", URL: &url.URL{Scheme: "dns+https", Host: "nowhere.invalid:" + port, Path: "/mcp"}},
		}
		c.Resolver = book
		c.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ServerName: "wrong.invalid"}
	})
	for range 12 {
		token := r.openSession()
		for range 3 {
			if got := post(r.url, token, pingBody).send(t); got.status != http.StatusOK {
				t.Fatalf("ping: %d %s", got.status, got.body)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for address, requests := range heard {
		if n := requests[seen{"example.com:" + port, "example.com"}]; len(requests) != 1 || n%4 != 0 {
			t.Errorf("%s heard %v, want four requests a session, all by name", address, requests)
		}
	}
	for _, name := range []string{"wrong", "nowhere"} {
		got := post(r.server.URL+"/"+name+"/mcp", "", initializeBody).send(t)
		if got.status != http.StatusServiceUnavailable || got.problem().Error.Data.Reason != "upstream_unavailable" {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}
