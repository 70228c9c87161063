package integration_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/deployment"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/roundrobin"
)

// recovery bounds how long a session may take to go on after a fault: the SDK's client waits up to 10 s between two tries.
const recovery = 30 * time.Second

func TestSessionSurvivesTheLossOfAReplica(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL())
	c := connect(t, d.URL(), "")
	for range d.Replicas {
		c.mustCall(t, "test_simple_text", nil)
	}

	// The replica that holds the client's GET stream, so that the stream is lost, too.
	victim := streamHolder(t, d.Front, c.ID())
	d.Replicas[victim].Kill()
	killed := len(d.Front.Trace())

	// Nothing was in flight but the stream, so that no call may fail, not even once.
	for range 2 * len(d.Replicas) {
		c.mustCall(t, "test_simple_text", nil)
	}
	exerciseSampling(t, c)
	for _, e := range d.Front.Trace()[killed:] {
		if e.Backend == victim {
			t.Errorf("%s %s was served by the dead replica %d", e.HTTPMethod, e.RPCMethod, victim)
		}
	}
	streamRecovers(t, c)

	if err := d.Replicas[victim].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range d.Replicas {
		c.mustCall(t, "test_simple_text", nil)
	}
	if last := sessionTrace(d.Front, c.ID()); !slices.ContainsFunc(last[len(last)-len(d.Replicas):], func(e roundrobin.Exchange) bool {
		return e.Backend == victim
	}) {
		t.Errorf("the restarted replica %d serves nothing of the session", victim)
	}
}

// A call in flight at a replica that dies gets an explicit error, and the next one works.
func TestCallInFlightAtALostReplicaFailsAndTheSessionGoesOn(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL())
	token := openSession(t, d.URL(), "2025-11-25")

	result := make(chan error, 1)
	go func() {
		// The server asks this client for an elicitation, which nobody answers: the call hangs until its replica dies.
		_, err := post(d.URL(), token, `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"test_sampling",`+
			`"arguments":{"prompt":"x"},"_meta":{}}}`).send(t.Context())
		result <- err
	}()
	var holder int
	eventually(t, answerTimeout, func(context.Context) error {
		trace := sessionTrace(d.Front, token)
		last := trace[len(trace)-1]
		if last.RPCMethod != "tools/call" || last.Status != http.StatusOK {
			return errNotYet
		}
		holder = last.Backend
		return nil
	})
	d.Replicas[holder].Kill()
	if err := receive(t, "answer to the call", result); err == nil {
		t.Error("the call that was in flight ended as if it were complete, want a broken connection")
	}
	for range d.Replicas {
		if got := mustSend(t, post(d.URL(), token, pingBody)); got.status != http.StatusOK {
			t.Errorf("ping after the loss: got %s, want 200", got)
		}
	}
}

func TestSessionSurvivesARestartOfAllReplicas(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *deployment.Deployment){
		"all stopped": func(t *testing.T, d *deployment.Deployment) {
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		},
		"all killed": func(_ *testing.T, d *deployment.Deployment) {
			for _, r := range d.Replicas {
				r.Kill()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL())
			c := connect(t, d.URL(), "")
			c.mustCall(t, "test_simple_text", nil)
			end(t, d)
			if err := d.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range d.Replicas {
				c.mustCall(t, "test_simple_text", nil)
			}
			exerciseSampling(t, c)
			streamRecovers(t, c)
		})
	}
}

// A rolling update: one replica after the other stops and starts, and the client keeps calling.
func TestSessionSurvivesARollingUpdate(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL())
	c := connect(t, d.URL(), "")
	for i, r := range d.Replicas {
		if err := r.Stop(); err != nil {
			t.Errorf("stop replica %d: %v", i, err)
		}
		for range d.Replicas {
			c.mustCall(t, "test_simple_text", nil)
		}
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	exerciseElicitation(t, c)
	streamRecovers(t, c)
}

// While the store hangs, nobody may be told that a session does not exist: clients throw their state away at a 404.
func TestStoreThatHangs(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newUpstream(t).URL())
	token := openSession(t, d.URL(), "2025-11-25")
	served := d.Replicas[0].URL()
	if got := mustSend(t, post(served, token, pingBody)); got.status != http.StatusOK {
		t.Fatalf("ping: got %s, want 200", got)
	}
	if err := store.Suspend(); err != nil {
		t.Fatal(err)
	}
	checkStoreAway(t, d, token)
	if err := store.Resume(); err != nil {
		t.Fatal(err)
	}
	for _, r := range d.Replicas {
		eventually(t, recovery, answers(post(r.URL(), token, pingBody), http.StatusOK, ""))
	}
	openSession(t, d.URL(), "2025-11-25")
}

func TestStoreThatDiesAndComesBack(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisserver.Options{Persistent: true})
	d := newDeployment(t, store.URL(), newUpstream(t).URL())
	token := openSession(t, d.URL(), "2025-11-25")
	store.Kill()
	checkStoreAway(t, d, token)
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range d.Replicas {
		eventually(t, recovery, answers(post(r.URL(), token, pingBody), http.StatusOK, ""))
	}
	openSession(t, d.URL(), "2025-11-25")
}

// A store that comes back empty has lost its sessions, which is then the truth to tell.
func TestStoreThatComesBackEmpty(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newUpstream(t).URL())
	token := openSession(t, d.URL(), "2025-11-25")
	store.Kill()
	checkStoreAway(t, d, token)
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range d.Replicas {
		eventually(t, recovery, answers(post(r.URL(), token, pingBody), http.StatusNotFound, "session_not_found"))
	}
	openSession(t, d.URL(), "2025-11-25")
}

// checkStoreAway looks at each replica while the store does not answer. The token is that of a live session, which a replica may
// still know and serve.
func checkStoreAway(t *testing.T, d *deployment.Deployment, token string) {
	t.Helper()
	// Nobody has this token; without the store nobody can know.
	const unknown = "0197a000-0000-7000-8000-000000000000.AAAAAAAAAAAAAAAAAAAAAAAAAA"
	for i, r := range d.Replicas {
		for name, request := range map[string]rawRequest{
			"initialize":         post(r.URL(), "", initializeBody("2025-11-25")),
			"an unknown session": post(r.URL(), unknown, pingBody),
			"DELETE":             {method: http.MethodDelete, url: r.URL(), header: http.Header{"Mcp-Session-Id": {token}}},
		} {
			start := time.Now()
			got := mustSend(t, request)
			if got.status != http.StatusServiceUnavailable || got.reason() != "store_unavailable" {
				t.Errorf("replica %d, %s: got %s, want 503 with reason store_unavailable", i, name, got)
			}
			if got.header.Get("Retry-After") == "" {
				t.Errorf("replica %d, %s: the 503 has no Retry-After", i, name)
			}
			// The store gets 250 ms to answer; the rest is a slow machine.
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("replica %d, %s: the 503 took %s", i, name, took)
			}
		}
		got := mustSend(t, post(r.URL(), token, pingBody))
		if got.status != http.StatusOK && got.reason() != "store_unavailable" {
			t.Errorf("replica %d, a live session: got %s, want 200 or reason store_unavailable", i, got)
		}
	}
}

// streamHolder returns the backend that serves the session's GET stream, once there is one.
func streamHolder(t *testing.T, front *roundrobin.Front, token string) int {
	t.Helper()
	backend := roundrobin.NoBackend
	eventually(t, recovery, func(context.Context) error {
		for _, e := range sessionTrace(front, token) {
			if e.HTTPMethod == http.MethodGet && e.Status == http.StatusOK {
				backend = e.Backend
				return nil
			}
		}
		return errNotYet
	})
	return backend
}

// streamRecovers waits until the client's GET stream delivers again what the server sends unasked.
func streamRecovers(t *testing.T, c *client) {
	t.Helper()
	took := eventually(t, recovery, func(ctx context.Context) error {
		if _, err := c.call(ctx, "test_trigger_tool_change", nil); err != nil {
			return err
		}
		select {
		case <-c.toolChanges:
			return nil
		case <-ctx.Done():
			return errors.New("the GET stream has not delivered the change of the tool list")
		}
	})
	t.Logf("the GET stream delivers again after %s", took.Round(time.Millisecond))
}
