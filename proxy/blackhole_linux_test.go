package proxy_test

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy"
)

// newBlackhole listens at an address that is free again, and leaves whoever connects without any answer, as a host does that has
// vanished: its queue of connections is full.
func newBlackhole(t *testing.T, address string) {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	dialer := net.Dialer{Timeout: 200 * time.Millisecond}
	for range 10 {
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return // it is full
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("whoever connects is still let in")
}

// vanishing is an upstream behind a gate, for which a blackhole can be put.
func vanishing(t *testing.T) (at *url.URL, vanish func()) {
	t.Helper()
	g := newGate(t, strings.TrimPrefix(strings.TrimSuffix(newUpstream(t, nil).url, "/endpoint"), "http://"))
	return &url.URL{Scheme: "http", Host: g.address(), Path: "/endpoint"}, func() {
		g.remove()
		newBlackhole(t, g.address())
	}
}

func TestAnUpstreamThatHasVanishedIsTriedForAFewSeconds(t *testing.T) {
	t.Parallel()
	at, vanish := vanishing(t)
	r := newFleet(t, at.String()).node()
	token := r.openSession()
	vanish()
	for body, most := range map[string]time.Duration{callBody: 5 * time.Second, initializeBody: 3 * time.Second} {
		used := token
		if body == initializeBody {
			used = ""
		}
		begun := time.Now()
		got := post(r.url, used, body).send(t)
		if p := got.problem(); got.status != http.StatusServiceUnavailable || p.Error.Data.Reason != "upstream_unavailable" {
			t.Errorf("%d %s", got.status, got.body)
		}
		if took := time.Since(begun); took > 2*most { // this machine may be busy
			t.Errorf("%s was tried for %v, want %v at most", body, took, most)
		}
	}
	if status := r.status(token); status != cluster.StatusActive {
		t.Errorf("the session is %s", status)
	}
}

func TestSessionsLeaveAnEndpointThatHasVanishedAfterOneMoreTry(t *testing.T) {
	t.Parallel()
	stays, _ := vanishing(t)
	vanishes, vanish := vanishing(t)
	r := newFleet(t, stays.String()).node(func(c *proxy.Config) {
		c.Upstreams = []proxy.Upstream{{URL: stays, More: []*url.URL{vanishes}}}
	})
	var tokens []string
	for len(tokens) < 3 {
		token := r.openSession()
		parsed, _ := cluster.ParseToken(token)
		s, err := r.manager.Get(t.Context(), parsed.ID)
		if err != nil {
			t.Fatal(err)
		}
		if s.Endpoint == vanishes.Host {
			tokens = append(tokens, token)
		}
	}
	vanish()
	for i, token := range tokens {
		begun := time.Now()
		wantsAnswer(t, post(r.url, token, callBody).send(t))
		tries := time.Since(begun) / proxy.DefaultDialTimeout // and what a busy machine adds to them
		if i == 0 && tries > 3 || i > 0 && tries > 1 {
			t.Errorf("session %d took %v to move: want two tries where nobody knew, and one more each when it was known", i, time.Since(begun))
		}
	}
}
