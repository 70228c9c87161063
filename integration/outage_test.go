package integration_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/deployment"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	outageLength   = 10 * time.Second
	outageSessions = 12
	outagePause    = 40 * time.Millisecond // between two requests of a session
	// outageIdle and the slack are shorter than the outage: what is not reported in time would end sessions.
	outageIdle   = 5 * time.Second
	outageLittle = 250 * time.Millisecond // what a request takes beside waiting for the store, on a busy machine
)

// storeFault is a way in which a store goes away and comes back.
type storeFault struct {
	options redisserver.Options
	begin   func(*redisserver.Server) error
	end     func(context.Context, *redisserver.Server) error
}

var storeFaults = map[string]storeFault{
	"it hangs": {
		begin: (*redisserver.Server).Suspend,
		end:   func(_ context.Context, s *redisserver.Server) error { return s.Resume() },
	},
	"it dies and comes back": {
		options: redisserver.Options{Persistent: true},
		begin: func(s *redisserver.Server) error {
			s.Kill()
			return nil
		},
		end: func(ctx context.Context, s *redisserver.Server) error { return s.Start(ctx) },
	},
}

// Known sessions are served while the store is away, nobody waits for it, and none of them is lost when it is back.
func TestKnownSessionsAreServedWhileTheStoreIsAway(t *testing.T) {
	for name, fault := range storeFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newRedis(t, fault.options)
			d := newDeployment(t, store.URL(), newUpstream(t).URL(),
				"--idle-timeout", outageIdle.String(), "--sweep-interval", "1s", "--leader-ttl", "2s")
			o := newOutage(t, d)
			o.phase(t, "before", 2*time.Second)

			if err := fault.begin(store); err != nil {
				t.Fatal(err)
			}
			// Three calls in a row must fail before nobody waits any more: a second is plenty.
			first := o.phase(t, "the store goes away", time.Second)
			checkStoreAway(t, d, o.tokens[0])
			checkStaysReady(t, d)
			rest := o.phase(t, "the store is away", outageLength)
			checkStaysReady(t, d)
			if err := fault.end(t.Context(), store); err != nil {
				t.Fatal(err)
			}
			o.phase(t, "the store comes back", outageIdle)
			within(t, "the slowest request when the store went away", first.worst(), storeTimeout+outageLittle)
			within(t, "the slowest request while it was away", rest.worst(), outageLittle)
			o.checkStore(t, store)
			o.checkLogs(t)
			openSession(t, d.URL(), "2025-11-25")
		})
	}
}

// storeTimeout is the default of --store-timeout.
const storeTimeout = 250 * time.Millisecond

// outage is a test with sessions that never stop asking.
type outage struct {
	deployment *deployment.Deployment
	tokens     []string
	sent       int // requests that were answered
}

// newOutage opens sessions that each replica knows.
func newOutage(t *testing.T, d *deployment.Deployment) *outage {
	t.Helper()
	o := &outage{deployment: d}
	for range outageSessions {
		token := openSession(t, d.URL(), "2025-11-25")
		o.tokens = append(o.tokens, token)
		for _, r := range d.Replicas {
			if got := mustSend(t, post(r.URL(), token, pingBody)); got.status != http.StatusOK {
				t.Fatalf("ping: got %s, want 200", got)
			}
			o.sent++
		}
	}
	return o
}

// latencies are how long the requests of a phase took.
type latencies []time.Duration

func (l latencies) worst() time.Duration { return l[len(l)-1] }

// phase lets all sessions ask for a while, each one replica after the other, and fails the test when a request is not served.
func (o *outage) phase(t *testing.T, name string, length time.Duration) latencies {
	t.Helper()
	var (
		mu    sync.Mutex
		took  latencies
		group sync.WaitGroup
		until = time.Now().Add(length)
	)
	for n, token := range o.tokens {
		group.Go(func() {
			for i := n; time.Now().Before(until); i++ {
				r := o.deployment.Replicas[i%len(o.deployment.Replicas)]
				begun := time.Now()
				got, err := post(r.URL(), token, pingBody).send(t.Context())
				mu.Lock()
				took = append(took, time.Since(begun))
				mu.Unlock()
				if err != nil || got.status != http.StatusOK {
					t.Errorf("%s: session %d at replica %d: %s, %v; want 200", name, n, i%len(o.deployment.Replicas), got, err)
				}
				<-time.After(outagePause)
			}
		})
	}
	group.Wait()
	slices.Sort(took)
	o.sent += len(took)
	at := func(share float64) time.Duration {
		return took[int(share*float64(len(took)-1))].Round(100 * time.Microsecond)
	}
	t.Logf("%-20s %5d requests, p50 %s, p99 %s, slowest %s", name, len(took), at(.5), at(.99), at(1))
	return took
}

// checkStaysReady looks at /readyz inside the grace.
func checkStaysReady(t *testing.T, d *deployment.Deployment) {
	t.Helper()
	for i, r := range d.Replicas {
		got := mustSend(t, rawRequest{method: http.MethodGet, url: r.AdminURL("/readyz")})
		if got.status != http.StatusOK || !strings.Contains(got.body, "away since 20") {
			t.Errorf("replica %d: /readyz says %s, want 200 and since when the store is away", i, got)
		}
	}
}

// checkStore fails the test when a session is lost or things are out of step in the store.
func (o *outage) checkStore(t *testing.T, server *redisserver.Server) {
	t.Helper()
	options := redisstore.Options{Config: cluster.DefaultConfig()}
	options.Config.StoreTimeout = patientTimeout
	store := openStore(t, server.URL(), options)
	var counted int64
	for _, text := range o.tokens {
		token, err := cluster.ParseToken(text)
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.Get(t.Context(), token.ID)
		if err != nil || s.Status != cluster.StatusActive {
			t.Errorf("session %s: %s, %v; want active", token.ID, s.Status, err)
		}
		counted += s.Requests
	}
	o.sent += len(o.tokens) // initialized
	t.Logf("%d requests were served, the store has counted %d of them", o.sent, counted)
	if counted < int64(o.sent/2) {
		t.Errorf("the store has counted %d of %d requests: what was served without it was not reported", counted, o.sent)
	}
	violations, err := store.Violations(t.Context())
	if err != nil || len(violations) > 0 {
		t.Errorf("violations: %q, %v", violations, err)
	}
}

// checkLogs wants two lines of each replica: one for the beginning of the outage and one for its end.
func (o *outage) checkLogs(t *testing.T) {
	t.Helper()
	for i, r := range o.deployment.Replicas {
		var told string
		eventually(t, recovery, func(context.Context) error {
			var lines []string
			for line := range strings.Lines(r.Output()) {
				if strings.Contains(line, "the store is away") || strings.Contains(line, "the store is back") || strings.Contains(line, "cannot be reached") {
					lines = append(lines, line)
				}
			}
			told = strings.Join(lines, "")
			if len(lines) != 2 {
				return fmt.Errorf("%d lines about the outage, want 2:\n%s", len(lines), told)
			}
			return nil
		})
		t.Logf("replica %d:\n%s", i, told)
		if !strings.Contains(told, fmt.Sprintf(`"sessions":%d`, len(o.tokens))) {
			t.Errorf("replica %d does not tell that %d sessions were served without the store:\n%s", i, len(o.tokens), told)
		}
		metrics := mustSend(t, rawRequest{method: http.MethodGet, url: r.AdminURL("/metrics")}).body
		for _, want := range []string{"\nshadowcat_store_outage 0\n", "\nshadowcat_store_outages_total 1\n", "\nshadowcat_store_breakers_open 0\n"} {
			if !strings.Contains(metrics, want) {
				t.Errorf("replica %d: /metrics lacks %q", i, strings.TrimSpace(want))
			}
		}
	}
}
