package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeDNS is a resolver whose answers tests choose.
type fakeDNS struct {
	mu    sync.Mutex
	found []string
	err   error
	slow  time.Duration // each lookup takes that long
	asked int
}

func (d *fakeDNS) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	found, err, slow := slices.Clone(d.found), d.err, d.slow
	d.asked++
	d.mu.Unlock()
	if network != "ip" || host != "files.internal" {
		return nil, fmt.Errorf("asked for %s of %s", network, host)
	}
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	addresses := make([]netip.Addr, len(found))
	for i, a := range found {
		addresses[i] = netip.MustParseAddr(a)
	}
	return addresses, err
}

func (d *fakeDNS) set(err error, found ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.found = err, found
}

func (d *fakeDNS) lookups() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// testUpstream makes an upstream of configured URLs.
func testUpstream(t *testing.T, dns *fakeDNS, urls ...string) *upstream {
	t.Helper()
	configured := Upstream{Name: "files"}
	for i, text := range urls {
		target, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			configured.URL = target
			continue
		}
		configured.More = append(configured.More, target)
	}
	cfg := Config{Upstreams: []Upstream{configured}}
	if dns != nil {
		cfg.Resolver = dns
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return newUpstream(configured, cfg.withDefaults())
}

const named = "dns+http://files.internal:8080/mcp?key=1"

// chosen returns the names of all endpoints that are chosen in many tries, sorted.
func chosen(t *testing.T, u *upstream, avoid ...string) []string {
	t.Helper()
	seen := make(map[string]bool)
	for range 200 {
		e, err := u.choose(t.Context(), avoid...)
		if err != nil {
			t.Fatal(err)
		}
		seen[e.name] = true
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func wantNames(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestListedEndpointsAreNamedByWhatTellsThemApart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ urls, names []string }{
		{[]string{"http://Files/mcp?key=hunter2"}, []string{"files:80"}},
		{[]string{"https://files/mcp"}, []string{"files:443"}},
		{[]string{"http://[::1]:9000/mcp"}, []string{"[::1]:9000"}},
		{[]string{"http://a:1/mcp", "http://b:1/mcp"}, []string{"a:1", "b:1"}},
		{[]string{"http://a:1/x", "http://a:1/y?key=hunter2", "http://b:1/x"}, []string{"http://a:1/x", "http://a:1/y", "http://b:1/x"}},
	} {
		u := testUpstream(t, nil, c.urls...)
		for i, e := range u.listed {
			if e.name != c.names[i] {
				t.Errorf("%q: endpoint %d is named %q, want %q", c.urls, i, e.name, c.names[i])
			}
			if found, ok := u.pinned(t.Context(), e.name); !ok || found != e {
				t.Errorf("%q: a record that names %q does not lead to it", c.urls, e.name)
			}
			if got, want := e.target("a=b").Host, u.targets()[i].Host; got != want || e.host != want {
				t.Errorf("%q: dials %q as %q, want %q", c.urls, got, e.host, want)
			}
		}
		for _, name := range []string{"", "c:1", "127.0.0.1:9000"} {
			if e, ok := u.pinned(t.Context(), name); ok {
				t.Errorf("%q: a record that names %q leads to %q", c.urls, name, e.name)
			}
		}
	}
}

func TestAQueryIsKeptBeforeTheClients(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ configured, client, want string }{
		{"http://a/mcp?key=1", "x=2", "http://a/mcp?key=1&x=2"},
		{"http://a/mcp?key=1", "", "http://a/mcp?key=1"},
		{"http://a/mcp", "x=2", "http://a/mcp?x=2"},
	} {
		e := testUpstream(t, nil, c.configured).listed[0]
		for range 2 { // what is configured is not changed
			if got := e.target(c.client).String(); got != c.want {
				t.Errorf("%s with %q: %s, want %s", c.configured, c.client, got, c.want)
			}
		}
	}
}

func TestEndpointsThatCannotWorkAreRefusedWithoutTheirURLs(t *testing.T) {
	t.Parallel()
	for want, urls := range map[string][]string{
		"same host, port and path":     {"http://a/mcp?key=hunter2", "http://A:80/mcp?key=hunter3"},
		"it must be the only one":      {"dns+http://a/mcp?key=hunter2", "http://b/mcp"},
		"so it must be the only one":   {"http://b/mcp", "dns+http://a/mcp?key=hunter2"},
		"user or password":             {"http://a/mcp", "http://user:hunter2@b/mcp"},
		"fragment":                     {"http://a/mcp", "http://b/mcp#hunter2"},
		"with dns+ before it":          {"dns+ftp://a/mcp?key=hunter2"},
		"more than 256":                slices.Repeat([]string{"http://a/hunter2"}, 257),
		"302 bytes before the query":   {"http://a:1/" + strings.Repeat("hunter2", 42)[:291], "http://a:1/b?key=hunter2"},
		"not 1 to 65535":               {"dns+http://a:0/mcp?key=hunter2"},
		"must be http://host[:port]/p": {"dns+http:///mcp?key=hunter2"},
	} {
		upstream := Upstream{Name: "files"}
		for i, text := range urls {
			target, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				upstream.URL = target
			} else {
				upstream.More = append(upstream.More, target)
			}
		}
		err := Config{Upstreams: []Upstream{upstream}}.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%.60q: %v; want %q", urls, err, want)
		}
	}
}

func TestUnhealthyEndpointsArePassedOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := testUpstream(t, nil, "http://a:1/mcp", "http://b:1/mcp", "http://c:1/mcp")
		a, b, c := u.listed[0], u.listed[1], u.listed[2]
		a.failed()
		wantNames(t, "one failure is no sign", chosen(t, u), "a:1", "b:1", "c:1")
		a.succeeded()
		a.failed()
		wantNames(t, "only failures in a row count", chosen(t, u), "a:1", "b:1", "c:1")
		a.failed()
		wantNames(t, "two failures", chosen(t, u), "b:1", "c:1")
		wantNames(t, "two failures, and one to avoid", chosen(t, u, "b:1"), "c:1")
		wantNames(t, "all healthy ones to avoid", chosen(t, u, "b:1", "c:1"), "a:1")
		wantNames(t, "all to avoid", chosen(t, u, "a:1", "b:1", "c:1"), "a:1", "b:1", "c:1")
		for _, e := range []*endpoint{b, c} {
			e.failed()
			e.failed()
		}
		wantNames(t, "all unhealthy", chosen(t, u), "a:1", "b:1", "c:1")
		b.succeeded()
		wantNames(t, "one is back", chosen(t, u), "b:1")
		time.Sleep(firstPause)
		wantNames(t, "after the pause", chosen(t, u), "a:1", "b:1", "c:1")
	})
}

func TestThePauseOfAnUnhealthyEndpointDoublesUpToABound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := testUpstream(t, nil, "http://a:1/mcp").listed[0]
		e.failed()
		for _, seconds := range []int{1, 2, 4, 8, 16, 30, 30} {
			want := time.Duration(seconds) * time.Second
			for range 100 { // requests that were on their way count once
				e.failed()
			}
			begun := time.Now()
			for !e.healthy() {
				time.Sleep(100 * time.Millisecond)
			}
			if got := time.Since(begun); got != want {
				t.Errorf("passed over for %v, want %v", got, want)
			}
		}
		e.failed()
		e.succeeded()
		e.failed()
		e.failed()
		time.Sleep(firstPause)
		if !e.healthy() {
			t.Error("after an answer the pause is not the first one again")
		}
	})
}

func TestSessionsSpreadAndNewEndpointsCatchUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := testUpstream(t, nil, "http://a:1/mcp", "http://b:1/mcp", "http://c:1/mcp")
		a := u.listed[0]
		for range 300 {
			a.pin()
		}
		for range 600 {
			e, err := u.choose(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			e.pin()
		}
		for _, e := range u.listed {
			if got := e.sessions(); got < 295 || got > 310 {
				t.Errorf("%s has %d sessions, want about 300", e.name, got)
			}
		}
		time.Sleep(tallySpan)
		if got := a.sessions(); got < 295 {
			t.Errorf("after one span %d sessions are counted", got)
		}
		time.Sleep(tallySpan)
		if got := a.sessions(); got != 0 {
			t.Errorf("after two spans %d sessions are counted", got)
		}
	})
}

func TestANamesAddressesAreEndpoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{found: []string{"10.0.0.2", "::ffff:10.0.0.2", "fd00::1", "10.0.0.1"}, slow: time.Second}
		u := testUpstream(t, dns, named)
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() {
				e, err := u.choose(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				target := e.target("")
				if e.host != "files.internal:8080" || target.Scheme != "http" || target.Host != e.name || target.RequestURI() != "/mcp?key=1" {
					t.Errorf("endpoint %s is %s at %s", e.name, e.host, target)
				}
			})
		}
		waiting.Wait()
		if n := dns.lookups(); n != 1 {
			t.Errorf("%d lookups by ten requests at once, want 1", n)
		}
		wantNames(t, "addresses", chosen(t, u), "10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080")
	})
}

func TestANameThatCannotBeResolvedIsAnErrorUntilItCan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("server misbehaving")
		dns := &fakeDNS{err: broken}
		u := testUpstream(t, dns, named)
		for range 10 {
			if _, err := u.choose(t.Context()); !errors.Is(err, broken) || !errors.Is(err, errUnresolved) {
				t.Errorf("choose: %v", err)
			}
		}
		if n := dns.lookups(); n != 1 {
			t.Errorf("%d lookups by ten requests one after another, want 1", n)
		}
		time.Sleep(resolveAgain)
		dns.set(nil)
		if _, err := u.choose(t.Context()); !errors.Is(err, errNoAddresses) {
			t.Errorf("choose: %v", err)
		}
		time.Sleep(resolveAgain)
		dns.set(nil, "10.0.0.1")
		wantNames(t, "addresses", chosen(t, u), "10.0.0.1:8080")
	})
}

func TestALookupIsBoundedAndACallerThatLeavesSpoilsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := testUpstream(t, &fakeDNS{found: []string{"10.0.0.1"}, slow: time.Second}, named)
		hasty, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, err := u.choose(hasty); err == nil {
				t.Error("a caller that left was served")
			}
		})
		synctest.Wait()
		wantNames(t, "those that wait", chosen(t, u), "10.0.0.1:8080")
		waiting.Wait()

		slow := testUpstream(t, &fakeDNS{slow: time.Hour}, named)
		begun := time.Now()
		if _, err := slow.choose(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != resolveTimeout {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}

// running runs the loops of a proxy with one upstream. The test's bubble ends them.
func running(t *testing.T, cfg Config, u *upstream) {
	t.Helper()
	p := &Proxy{cfg: cfg.withDefaults(), log: slog.New(slog.DiscardHandler), upstreams: map[string]*upstream{"/files/mcp": u}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.RunEndpoints(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestANameIsResolvedAgainAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{found: []string{"10.0.0.1", "10.0.0.2"}}
		u := testUpstream(t, dns, named)
		running(t, Config{}, u)
		wantNames(t, "at first", chosen(t, u), "10.0.0.1:8080", "10.0.0.2:8080")
		first, _ := u.pinned(t.Context(), "10.0.0.1:8080")
		second, _ := u.pinned(t.Context(), "10.0.0.2:8080")

		dns.set(nil, "10.0.0.2", "10.0.0.3")
		time.Sleep(resolveInterval + resolveInterval/5)
		wantNames(t, "after a change", chosen(t, u), "10.0.0.2:8080", "10.0.0.3:8080")
		if e, ok := u.pinned(t.Context(), "10.0.0.1:8080"); !ok || e != first {
			t.Error("an address that left the list, and what is known of it, is forgotten at once")
		}
		if e, ok := u.pinned(t.Context(), "10.0.0.2:8080"); !ok || e != second {
			t.Error("what is known of an address that stayed is forgotten")
		}

		dns.set(errors.New("server misbehaving"))
		time.Sleep(time.Hour)
		dns.set(nil)
		time.Sleep(time.Hour)
		wantNames(t, "while it cannot be resolved", chosen(t, u), "10.0.0.2:8080", "10.0.0.3:8080")
		if n := dns.lookups(); n < 2*3600/6 || n > 2*3600/4 {
			t.Errorf("%d lookups in two hours, want one in five seconds", n)
		}
	})
}

func TestWithoutItsLoopAProxyResolvesWhenItMust(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{found: []string{"10.0.0.1"}}
		u := testUpstream(t, dns, named)
		wantNames(t, "at first", chosen(t, u), "10.0.0.1:8080")
		dns.set(nil, "10.0.0.2")
		time.Sleep(resolveLate)
		wantNames(t, "later", chosen(t, u), "10.0.0.2:8080")
		if n := dns.lookups(); n != 2 {
			t.Errorf("%d lookups, want 2", n)
		}
	})
}

func TestARecordMayNameAnAddressThatIsNotListed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{found: []string{"10.0.0.1"}}
		u := testUpstream(t, dns, named)
		e, ok := u.pinned(t.Context(), "10.0.0.9:8080")
		if !ok || e.target("").String() != "http://10.0.0.9:8080/mcp?key=1" || e.host != "files.internal:8080" {
			t.Errorf("an address that may have been listed: %v, %v", e, ok)
		}
		if n := dns.lookups(); n != 0 {
			t.Errorf("%d lookups for it", n)
		}
		wantNames(t, "for new sessions", chosen(t, u), "10.0.0.1:8080")
		e.failed()
		if again, _ := u.pinned(t.Context(), "10.0.0.9:8080"); again != e {
			t.Error("what is known of it is forgotten")
		}
		for _, name := range []string{
			"10.0.0.1:9090", "10.0.0.1", "files.internal:8080", "127.0.0.1:8080", "[::1]:8080", "0.0.0.0:8080", "224.0.0.1:8080",
			"169.254.169.254:8080", "[fe80::1%eth0]:8080", "[::ffff:10.0.0.1]:8080", "10.0.0.1:08080", "http://10.0.0.1:8080/mcp",
			"evil@10.0.0.1:8080", "",
		} {
			if e, ok := u.pinned(t.Context(), name); ok {
				t.Errorf("a record that names %q leads to %s", name, e.url.Host)
			}
		}
		local := testUpstream(t, &fakeDNS{found: []string{"127.0.0.1"}}, named)
		if _, ok := local.pinned(t.Context(), "127.0.0.1:8080"); !ok {
			t.Error("a name that is this host's leads to none of its addresses")
		}
	})
}

func TestWhatIsRememberedOfANameIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{}
		for i := range 300 {
			dns.found = append(dns.found, fmt.Sprintf("10.0.%d.%d", i/200, i%200+1))
		}
		u := testUpstream(t, dns, named)
		running(t, Config{}, u)
		synctest.Wait()
		if listed, _ := sizes(u); listed != maxEndpoints {
			t.Errorf("%d endpoints of 300 addresses, want %d", listed, maxEndpoints)
		}
		for i := range 5000 {
			if _, ok := u.pinned(t.Context(), fmt.Sprintf("10.1.%d.%d:8080", i/200, i%200+1)); !ok {
				t.Fatal("an address is refused because there are many")
			}
		}
		if _, known := sizes(u); known > maxKnown {
			t.Errorf("%d addresses are remembered, want at most %d", known, maxKnown)
		}
		time.Sleep(forgetAfter + 2*resolveInterval)
		if _, known := sizes(u); known != maxEndpoints {
			t.Errorf("%d addresses are remembered after a while, want the %d that are listed", known, maxEndpoints)
		}
	})
}

func sizes(u *upstream) (listed, known int) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return len(u.listed), len(u.known)
}

// panicking is a resolver that fails the hard way at first.
type panicking struct {
	fakeDNS
	once sync.Once
}

func (p *panicking) LookupNetIP(ctx context.Context, network, host string) (found []netip.Addr, err error) {
	p.once.Do(func() { panic("boom") })
	return p.fakeDNS.LookupNetIP(ctx, network, host)
}

func TestResolvingGoesOnAfterAPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := testUpstream(t, nil, named)
		u.names.resolver = &panicking{fakeDNS: fakeDNS{found: []string{"10.0.0.1"}}}
		running(t, Config{}, u)
		time.Sleep(3 * resolveInterval)
		wantNames(t, "addresses", chosen(t, u), "10.0.0.1:8080")
	})
}

// An endpoint that hangs accepts connections, as far as its kernel is concerned.
func TestEndpointsAreAskedWhetherTheyAnswer(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	alive := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method != http.MethodOptions || r.Header.Get("Mcp-Session-Id") == "" {
			t.Errorf("it is asked for %s with %v", r.Method, r.Header)
		}
		w.WriteHeader(http.StatusMethodNotAllowed)
	}))
	defer alive.Close()
	hung, dead := listen(t), listen(t)
	defer hung.Close()
	dead.Close()
	u := testUpstream(t, nil, alive.URL+"/mcp", "http://"+hung.Addr().String()+"/mcp", "http://"+dead.Addr().String()+"/mcp")
	u.listed[0].failed()
	running(t, Config{CheckInterval: time.Millisecond, CheckTimeout: 500 * time.Millisecond}, u)
	for deadline := time.Now().Add(20 * time.Second); !u.listed[1].dead.Load() || !u.listed[2].dead.Load() || u.listed[0].ailing.Load(); {
		if time.Now().After(deadline) {
			t.Fatal("not found out within 20 s")
		}
		runtime.Gosched()
	}
	wantNames(t, "chosen", chosen(t, u), u.listed[0].name)
	if asked.Load() == 0 {
		t.Error("the endpoint that answers was not asked")
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAnEndpointThatOpensNoSessionsIsPassedOverWhateverElseItAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := testUpstream(t, nil, "http://a:1/mcp", "http://b:1/mcp")
		a := u.listed[0]
		a.refused()
		wantNames(t, "one server error is no sign", chosen(t, u), "a:1", "b:1")
		a.opened()
		a.refused()
		wantNames(t, "only server errors in a row count", chosen(t, u), "a:1", "b:1")
		a.refused()
		a.succeeded()
		wantNames(t, "two server errors", chosen(t, u), "b:1")
		a.opened()
		wantNames(t, "it opens sessions", chosen(t, u), "a:1", "b:1")
		a.unopened()
		wantNames(t, "one initialize without an answer", chosen(t, u), "b:1")
	})
}

func TestOneOfManyTriesAnEndpointAfterAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := testUpstream(t, nil, "http://a:1/mcp", "http://b:1/mcp")
		a := u.listed[0]
		a.unopened()
		for _, pause := range []time.Duration{firstPause, 2 * firstPause, 4 * firstPause} {
			time.Sleep(pause - time.Millisecond)
			wantNames(t, "before the pause has ended", chosen(t, u), "b:1")
			time.Sleep(time.Millisecond)
			tried := 0
			for range 200 {
				e, err := u.choose(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if e == a {
					tried++
				}
			}
			if tried != 1 {
				t.Errorf("after a pause of %v it was tried %d times, want once", pause, tried)
			}
		}
		a.opened()
		wantNames(t, "when the one was answered", chosen(t, u), "a:1", "b:1")
	})
}

func TestAnAnswerOfWhateverKindEndsWhatChecksHaveFound(t *testing.T) {
	t.Parallel()
	u := testUpstream(t, nil, "http://a:1/mcp", "http://b:1/mcp")
	a := u.listed[0]
	for range deadAfter {
		wantNames(t, "before", chosen(t, u), "a:1", "b:1")
		a.missedCheck()
	}
	wantNames(t, "after three checks", chosen(t, u), "b:1")
	a.succeeded()
	wantNames(t, "after an answer", chosen(t, u), "a:1", "b:1")
	a.missedCheck()
	wantNames(t, "after one more check", chosen(t, u), "a:1", "b:1")
}

func TestAnEndpointThatAilsIsLoggedOnceAndOnceWhenItIsWell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		u := testUpstream(t, nil, "http://a:1/mcp")
		e := u.listed[0]
		e.log = slog.New(slog.NewTextHandler(&log, nil))
		for range 2 {
			for range 5 {
				e.missedCheck()
				e.unopened()
				e.failed()
				time.Sleep(longestPause)
			}
			e.succeeded()
			e.opened()
			e.succeeded()
			e.failed()
			e.succeeded()
		}
		got := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(got) != 4 || strings.Count(log.String(), "endpoint ails") != 2 || strings.Count(log.String(), "is well again") != 2 {
			t.Errorf("it logs\n%s\nwant that it ails and that it is well, twice", log.String())
		}
	})
}

func TestSessionsThatEndLeaveTheCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := testUpstream(t, nil, "http://a:1/mcp").listed[0]
		e.pin()
		e.pin()
		time.Sleep(tallySpan)
		e.pin()
		for _, want := range []int{2, 1, 0, 0} {
			e.unpin()
			if got := e.sessions(); got != want {
				t.Errorf("%d sessions are counted, want %d", got, want)
			}
		}
	})
}
