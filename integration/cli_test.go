package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/process"
)

// errNotYet is the answer of a probe that has nothing more to say.
var errNotYet = errors.New("not yet")

// listedSession is a session as `session list --output json` prints it.
type listedSession struct {
	ID             string    `json:"id"`
	Status         string    `json:"status"`
	Upstream       string    `json:"upstream"`
	Endpoint       string    `json:"endpoint"`
	Revision       string    `json:"revision"`
	CreatedAt      time.Time `json:"created_at"`
	LastActivityAt time.Time `json:"last_activity_at"`
	DeadlineAt     time.Time `json:"deadline_at"`
	Requests       int64     `json:"requests"`
}

// A session created through one replica is listed, shown, served by the others, and gone everywhere once terminated.
func TestOperatorSeesAndEndsASession(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	upstream := newUpstream(t)
	d := newDeployment(t, store.URL(), upstream.URL())
	token := openSession(t, d.Replicas[0].URL(), "2025-06-18")
	id, secret, _ := strings.Cut(token, ".")
	// Often enough that each replica serves the session from its lease and does not ask the store.
	for _, r := range d.Replicas {
		for range 10 {
			if got := mustSend(t, post(r.URL(), token, pingBody)); got.status != http.StatusOK {
				t.Fatalf("ping at %s: got %s, want 200", r.URL(), got)
			}
		}
	}

	listed := listSessions(t, store.URL())
	if len(listed) != 1 || listed[0].ID != id || listed[0].Status != "active" || listed[0].Revision != "2025-06-18" {
		t.Fatalf("session list: got %+v, want the active session %s", listed, id)
	}
	if got := "http://" + listed[0].Endpoint + "/mcp"; got != upstream.URL() {
		t.Errorf("session list: the endpoint is %q, want the host and port of %s", listed[0].Endpoint, upstream.URL())
	}
	if s := listed[0]; s.CreatedAt.IsZero() || s.LastActivityAt.Before(s.CreatedAt) || !s.DeadlineAt.After(s.LastActivityAt) {
		t.Errorf("session list: the times of %+v are out of order", s)
	}
	for _, output := range []string{"table", "json"} {
		shown := command(t, 0, "session", "show", id, "--redis", store.URL(), "--output", output)
		if !strings.Contains(shown, id) || !strings.Contains(shown, "active") {
			t.Errorf("session show --output %s: got %q, want the id and the status", output, shown)
		}
		if strings.Contains(shown, secret) {
			t.Errorf("session show --output %s prints the secret", output)
		}
	}
	if got := command(t, 0, "stats", "--redis", store.URL(), "--output", "json"); !json.Valid([]byte(got)) {
		t.Errorf("stats: got %q, want JSON", got)
	}

	start := time.Now()
	command(t, 0, "session", "terminate", id, "--redis", store.URL())
	for i, r := range d.Replicas {
		eventually(t, revocation, answers(post(r.URL(), token, pingBody), http.StatusNotFound, "session_not_found"))
		t.Logf("replica %d refused the session %s after it was terminated", i, time.Since(start).Round(time.Millisecond))
	}
	if took := time.Since(start); took > validity {
		t.Logf("that is more than the lease's %s: a busy machine, or a fault", validity)
	}
	if got := showSession(t, store.URL(), token).Status; got != "terminated" {
		t.Errorf("session show: the terminated session is %s", got)
	}
	command(t, 3, "session", "terminate", "0197a000-0000-7000-8000-000000000000", id, "--redis", store.URL())
}

// Without leases every request asks the store, so that an ended session is refused at once, everywhere.
func TestStrictModeRefusesAnEndedSessionAtOnce(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newUpstream(t).URL(), "--lease=0")
	token := openSession(t, d.URL(), "2025-11-25")
	for _, r := range d.Replicas {
		if got := mustSend(t, post(r.URL(), token, pingBody)); got.status != http.StatusOK {
			t.Fatalf("ping at %s: got %s, want 200", r.URL(), got)
		}
	}
	id, _, _ := strings.Cut(token, ".")
	command(t, 0, "session", "terminate", id, "--redis", store.URL())
	for _, r := range d.Replicas {
		if got := mustSend(t, post(r.URL(), token, pingBody)); got.status != http.StatusNotFound {
			t.Errorf("ping at %s after the end: got %s, want 404", r.URL(), got)
		}
	}
}

func TestExitStatusOfCommands(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	stopped := newStoppedRedis(t)
	const unknown = "0197a000-0000-7000-8000-000000000000"
	for name, test := range map[string]struct {
		status int
		args   []string
	}{
		"an empty store":      {0, []string{"session", "list", "--redis", store.URL()}},
		"no such session":     {3, []string{"session", "show", unknown, "--redis", store.URL()}},
		"nothing to end":      {3, []string{"session", "terminate", unknown, "--redis", store.URL()}},
		"no store":            {1, []string{"session", "list", "--redis", stopped.URL()}},
		"an unknown flag":     {2, []string{"session", "list", "--no-such-flag"}},
		"an unknown command":  {2, []string{"sessions"}},
		"a malformed id":      {2, []string{"session", "show", "{*}", "--redis", store.URL()}},
		"a malformed output":  {2, []string{"stats", "--redis", store.URL(), "--output", "xml"}},
		"an impossible store": {2, []string{"stats", "--redis", "http://127.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command(t, test.status, test.args...)
		})
	}
}

func listSessions(t *testing.T, redisURL string) []listedSession {
	t.Helper()
	output := command(t, 0, "session", "list", "--redis", redisURL, "--output", "json")
	var list struct {
		Sessions []listedSession `json:"sessions"`
	}
	if err := json.Unmarshal([]byte(output), &list); err != nil {
		t.Fatalf("session list --output json printed %q: %v", output, err)
	}
	return list.Sessions
}

// showSession returns what `session show` says about the session of a token.
func showSession(t *testing.T, redisURL, token string) listedSession {
	t.Helper()
	id, _, _ := strings.Cut(token, ".")
	output := command(t, 0, "session", "show", id, "--redis", redisURL, "--output", "json")
	var session listedSession
	if err := json.Unmarshal([]byte(output), &session); err != nil {
		t.Fatalf("session show --output json printed %q: %v", output, err)
	}
	return session
}

// command runs the product with the given arguments, wants the given exit status and returns what it printed to standard output.
func command(t *testing.T, status int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerTimeout)
	defer cancel()
	run := exec.CommandContext(ctx, built(t, productBinary), args...)
	run.Env = process.Environment("SHADOWCAT_")
	var stdout, stderr strings.Builder
	run.Stdout, run.Stderr = &stdout, &stderr
	if err := run.Run(); err != nil && run.ProcessState == nil {
		t.Fatal(err)
	}
	if got := run.ProcessState.ExitCode(); got != status {
		t.Errorf("%s: exit status %d, want %d; it printed:\n%s%s", strings.Join(args, " "), got, status, &stdout, &stderr)
	}
	if status != 0 && stderr.Len() == 0 {
		t.Errorf("%s: exit status %d without a word on standard error", strings.Join(args, " "), status)
	}
	return stdout.String()
}
