package integration_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/tapwire/shadowcat-cluster/integration/roundrobin"
)

// legacyRevisions are those with sessions.
var legacyRevisions = []string{"2025-11-25", "2025-06-18", "2025-03-26"}

// Without any replica in between: when this fails, the tests are wrong and not the product.
func TestSDKClientDirect(t *testing.T) {
	t.Parallel()
	upstream, err := url.Parse(newUpstream(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, newFront(t, upstream.Host).URL(), "")
	exerciseFeatures(t, c)
	if err := c.Close(); err != nil {
		t.Errorf("close the session (DELETE): %v", err)
	}
}

func TestSDKClientThroughThreeReplicas(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newUpstream(t).URL())
	c := connect(t, d.URL(), "")
	if got := c.InitializeResult().ProtocolVersion; got != "2025-11-25" {
		t.Fatalf("negotiated %s, want the newest revision with sessions", got)
	}

	exerciseFeatures(t, c)

	trace := sessionTrace(d.Front, c.ID())
	for backend := range d.Replicas {
		if !slices.ContainsFunc(trace, func(e roundrobin.Exchange) bool { return e.Backend == backend && e.Status == 200 }) {
			t.Errorf("replica %d has served nothing of the session", backend)
		}
	}
	answersLandElsewhere(t, trace)
	if err := c.Close(); err != nil {
		t.Errorf("close the session (DELETE): %v", err)
	}
	for _, r := range d.Replicas {
		eventually(t, revocation, answers(post(r.URL(), c.ID(), pingBody), 404, "session_not_found"))
	}
	// That could be the upstream's doing alone, which has ended its own session.
	if got := showSession(t, store.URL(), c.ID()).Status; got != "closed" {
		t.Errorf("the store says that the session is %s, want closed", got)
	}
}

func TestSDKClientInEachRevision(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, newRedis(t, redisOptions).URL(), newUpstream(t).URL())
	for _, revision := range legacyRevisions {
		t.Run(revision, func(t *testing.T) {
			t.Parallel()
			c := connect(t, d.URL(), revision)
			if got := c.InitializeResult().ProtocolVersion; got != revision {
				t.Fatalf("negotiated %s, want %s", got, revision)
			}
			for range d.Replicas {
				c.mustCall(t, "test_simple_text", nil)
			}
			exerciseSampling(t, c)
			exerciseListChanges(t, c)
			if err := c.Close(); err != nil {
				t.Errorf("close the session (DELETE): %v", err)
			}
		})
	}
}

// Traffic of 2026-07-28 has no session, so none must be made for it.
func TestStatelessTrafficPassesThrough(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newStatelessUpstream(t).URL())
	c := connect(t, d.URL(), "")
	if got := c.InitializeResult().ProtocolVersion; got != "2026-07-28" {
		t.Fatalf("negotiated %s, want 2026-07-28", got)
	}
	t.Run("tools", func(t *testing.T) { exerciseTools(t, c) })
	t.Run("prompts", func(t *testing.T) { exercisePrompts(t, c) })
	t.Run("resources", func(t *testing.T) { exerciseResources(t, c) })
	t.Run("progress", func(t *testing.T) { exerciseProgress(t, c) })
	t.Run("tool list changes", func(t *testing.T) { exerciseListChanges(t, c) })

	for _, e := range d.Front.Trace() {
		if e.GrantedSessionID != "" || e.SessionID != "" {
			t.Errorf("%s %s carried a session id", e.HTTPMethod, e.RPCMethod)
		}
	}
	if got := c.ID(); got != "" {
		t.Errorf("the client has the session id %q, want none", got)
	}
	keys, err := store.Keys(t.Context(), "shadowcat:*:session:*")
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) > 0 {
		t.Errorf("the store holds %v, want no session", keys)
	}
}

// sessionTrace returns what the front has forwarded with the given token.
func sessionTrace(front *roundrobin.Front, token string) []roundrobin.Exchange {
	return slices.DeleteFunc(front.Trace(), func(e roundrobin.Exchange) bool { return e.SessionID != token })
}

// answersLandElsewhere checks that each answer of the client to the server went to another replica than the call during which
// the server asked. Calls of the two tools that ask are one after the other, so the call before an answer is its cause.
func answersLandElsewhere(t *testing.T, trace []roundrobin.Exchange) {
	t.Helper()
	calledAt, answers := roundrobin.NoBackend, 0
	for _, e := range trace {
		switch {
		case e.RPCMethod == "tools/call":
			calledAt = e.Backend
		case e.IsAnswer():
			answers++
			if e.Backend == calledAt {
				t.Errorf("the answer %s went to replica %d as the call did: the test has proven nothing", e.RPCID, e.Backend)
			}
			if e.Status != 202 {
				t.Errorf("the answer %s got status %d, want 202", e.RPCID, e.Status)
			}
		}
	}
	if answers != 2 {
		t.Errorf("the client answered %d requests of the server, want 2: %s", answers, fmt.Sprint(trace))
	}
}
