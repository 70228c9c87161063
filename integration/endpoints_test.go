package integration_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/binary"
	"github.com/tapwire/shadowcat-cluster/integration/dnsserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// pod is one endpoint of an upstream, at an address of its own. It knows the sessions that were opened at it, until it is stopped.
type pod struct {
	t       *testing.T
	address netip.AddrPort

	mu       sync.Mutex
	server   *http.Server
	sessions int
}

// startPods starts pods at different addresses and the same port.
func startPods(t *testing.T, addresses ...string) []*pod {
	t.Helper()
	for try := 1; ; try++ {
		pods, err := tryPods(t, addresses)
		if err == nil {
			return pods
		}
		if try == 10 {
			t.Fatal(err)
		}
	}
}

func tryPods(t *testing.T, addresses []string) (pods []*pod, err error) {
	t.Helper()
	var port uint16
	for _, address := range addresses {
		p := &pod{t: t, address: netip.AddrPortFrom(netip.MustParseAddr(address), port)}
		if err := p.start(); err != nil {
			for _, started := range pods {
				started.stop()
			}
			return nil, err
		}
		port = p.address.Port()
		pods = append(pods, p)
	}
	t.Cleanup(func() {
		for _, p := range pods {
			p.stop()
		}
	})
	return pods, nil
}

// start has it listen. The first time any port will do.
func (p *pod) start() error {
	l, err := (&net.ListenConfig{}).Listen(p.t.Context(), "tcp", p.address.String())
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address = netip.MustParseAddrPort(l.Addr().String())
	p.server = &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: time.Minute}
	go func(s *http.Server) { _ = s.Serve(l) }(p.server) // ends with stop
	return nil
}

// stop ends it, as a pod that is lost.
func (p *pod) stop() {
	p.mu.Lock()
	server := p.server
	p.mu.Unlock()
	_ = server.Close()
}

// name is what its sessions are called.
func (p *pod) name() string { return "at-" + p.address.String() }

func (p *pod) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	message, _ := mcp.Peek(body) // the replica has looked at it
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case message.Initializes:
		p.sessions++
		w.Header().Set("Mcp-Session-Id", p.name())
	case r.Header.Get("Mcp-Session-Id") != p.name():
		http.Error(w, "no such session", http.StatusNotFound)
		return
	case message.ID == "":
		w.WriteHeader(http.StatusAccepted)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":%q,"version":"1"}}}`,
		message.ID, p.name())
}

// opened is how many sessions were opened at it.
func (p *pod) opened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions
}

// openAt opens a session at a replica. It returns the token, and the name of the endpoint that it was given.
func openAt(t *testing.T, r *replica.Replica) (token, at string) {
	t.Helper()
	answer := mustSend(t, post(r.URL(), "", initializeBody("2025-11-25")))
	token = answer.header.Get("Mcp-Session-Id")
	if answer.status != http.StatusOK || token == "" {
		t.Fatalf("initialize: %d %s", answer.status, answer.body)
	}
	return token, servedBy(t, answer)
}

// servedBy is the name of the endpoint that has answered.
func servedBy(t *testing.T, answer rawAnswer) string {
	t.Helper()
	_, name, named := strings.Cut(answer.body, `"serverInfo":{"name":"`)
	if !named || answer.status != http.StatusOK {
		t.Fatalf("%d %s", answer.status, answer.body)
	}
	name, _, _ = strings.Cut(name, `"`)
	return name
}

// allAt waits until all of several new sessions in a row are given to one endpoint. Of two that are healthy, a replica gives to each in
// turn.
func allAt(t *testing.T, r *replica.Replica, want *pod) {
	t.Helper()
	eventually(t, time.Minute, func(context.Context) error {
		for range 3 {
			if _, at := openAt(t, r); at != want.name() {
				return fmt.Errorf("a new session is %s, want %s", at, want.name())
			}
		}
		return nil
	})
}

var resolvingBinary = sync.OnceValues(func() (string, error) {
	return binary.BuildResolving(context.Background(), binaries, binary.ShadowcatCluster)
})

// All addresses of a name are endpoints. One that leaves the DNS gets no new sessions and keeps those that it has for as long as it
// answers; then they move. One that comes back gets sessions again.
func TestEndpointsFollowTheDNS(t *testing.T) {
	t.Parallel()
	redis := newRedis(t, redisOptions)
	dns, err := dnsserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, dns.Close))
	pods := startPods(t, "127.0.0.2", "127.0.0.3")
	stays, leaves := pods[0], pods[1]
	const name = "pods.upstream.test"
	dns.Set(name, stays.address.Addr(), leaves.address.Addr())
	replicas := make([]*replica.Replica, 2)
	for i := range replicas {
		replicas[i] = startReplica(t, replica.Options{
			Executable: built(t, resolvingBinary), RedisURL: redis.URL(),
			Upstreams: []string{"dns+http://" + net.JoinHostPort(name, strconv.Itoa(int(stays.address.Port()))) + "/"},
			Env:       []string{binary.DNSVariable + "=" + dns.Address()},
		})
	}
	sessions := make(map[string]string) // token -> endpoint
	for _, r := range replicas {
		for range 4 {
			token, at := openAt(t, r)
			sessions[token] = at
		}
	}
	for _, p := range pods {
		if p.opened() != 4 {
			t.Errorf("%d of 8 sessions are %s, want 4", p.opened(), p.name())
		}
	}
	stay := func(what string) {
		t.Helper()
		for token, at := range sessions {
			for _, r := range replicas {
				if got := servedBy(t, mustSend(t, post(r.URL(), token, pingBody))); got != at {
					t.Errorf("%s, a session is served %s, want %s", what, got, at)
				}
			}
		}
	}
	stay("at any replica")

	dns.Set(name, stays.address.Addr())
	for _, r := range replicas {
		allAt(t, r, stays)
	}
	stay("out of the DNS")
	dns.Set(name) // a DNS that forgets everything changes nothing
	stay("without any DNS")
	dns.Set(name, stays.address.Addr())

	leaves.stop()
	for token := range sessions {
		sessions[token] = stays.name()
	}
	stay("when the endpoint is gone")
	if err := leaves.start(); err != nil {
		t.Fatal(err)
	}
	dns.Set(name, stays.address.Addr(), leaves.address.Addr())
	for _, r := range replicas {
		eventually(t, time.Minute, func(context.Context) error {
			if _, at := openAt(t, r); at != leaves.name() {
				return errors.New("no new session is at the endpoint that has come back")
			}
			return nil
		})
	}
}

// An endpoint that fails its check is passed over without any client having had to find out, and is given sessions again when the
// check says so.
func TestEndpointsAreChecked(t *testing.T) {
	t.Parallel()
	redis := newRedis(t, redisOptions)
	pods := startPods(t, "127.0.0.2", "127.0.0.3")
	stays, fails := pods[0], pods[1]
	r := startReplica(t, replica.Options{
		RedisURL:  redis.URL(),
		Upstreams: []string{fmt.Sprintf("http://%s/,http://%s/", stays.address, fails.address)}, Args: []string{"--upstream-check-interval", "1s"},
	})
	logs := func(message string) {
		t.Helper()
		eventually(t, time.Minute, func(context.Context) error {
			for line := range strings.Lines(r.Output()) {
				if strings.Contains(line, message) && strings.Contains(line, fails.address.String()) {
					return nil
				}
			}
			return fmt.Errorf("the replica has not said %q of %s", message, fails.address)
		})
	}
	fails.stop()
	logs("upstream endpoint ails") // nobody has asked it for anything
	allAt(t, r, stays)
	if err := fails.start(); err != nil {
		t.Fatal(err)
	}
	logs("upstream endpoint is well again") // nor now
	if fails.opened() != 0 {
		t.Errorf("%d sessions were opened at it before, want none", fails.opened())
	}
	eventually(t, time.Minute, func(context.Context) error {
		if _, at := openAt(t, r); at != fails.name() {
			return errors.New("no new session is at the endpoint that is back")
		}
		return nil
	})
}
