package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
)

// The two lines that an outage costs a replica.
const (
	outageBegins = "WARN the store is away: sessions that this replica knows are served without it, for a time; no new ones"
	outageEnds   = "INFO the store is back: what was served without it has been reported"
)

// Who reads the log of a replica is told of an outage once when it begins and once when it ends, whatever the replica does with the
// store: lead, record messages, keep an audit record, read streams.
func TestAnOutageCostsEachReplicaTwoLines(t *testing.T) {
	for name, fault := range storeFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkLinesOfAnOutage(t, fault)
		})
	}
}

func checkLinesOfAnOutage(t *testing.T, fault storeFault) {
	t.Helper()
	store := newRedis(t, fault.options)
	// A leader whose lock is that short loses its lead; one with the default sometimes would.
	d := newDeployment(t, store.URL(), newUpstream(t).URL(),
		"--sweep-interval", "1s", "--leader-ttl", "4s", "--recording", "full", "--audit-stream", "1000")
	o := newOutage(t, d)
	for i, r := range d.Replicas {
		if _, status := listenAt(t, r.URL(), o.tokens[i]); status != http.StatusOK {
			t.Fatalf("listening at replica %d: %d", i, status)
		}
	}
	eventually(t, recovery, func(context.Context) error {
		if n := countLines(d.Replicas, "INFO this replica leads"); n != 1 {
			return fmt.Errorf("%d replicas have become leader, want 1", n)
		}
		return nil
	})
	o.phase(t, "before", 3*time.Second) // a new leader waits for a while before it does anything
	said := make([]int, len(d.Replicas))
	for i, r := range d.Replicas {
		said[i] = len(linesOf(t, r))
	}

	if err := fault.begin(store); err != nil {
		t.Fatal(err)
	}
	o.phase(t, "the store is away", outageLength)
	if err := fault.end(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	eventually(t, recovery, func(context.Context) error {
		if n := countLines(d.Replicas, outageEnds); n < len(d.Replicas) {
			return fmt.Errorf("%d replicas say that the store is back", n)
		}
		if n := countLines(d.Replicas, "INFO this replica leads"); n != 2 {
			return fmt.Errorf("%d times somebody became leader, want 2", n)
		}
		return nil
	})
	o.phase(t, "the store is back", 3*time.Second) // whatever is still to be said

	for i, r := range d.Replicas {
		got := linesOf(t, r)[said[i]:]
		// Who leads now says so, as at any other time.
		got = slices.DeleteFunc(got, func(line string) bool { return line == "INFO this replica leads" })
		if want := []string{outageBegins, outageEnds}; !slices.Equal(got, want) {
			t.Errorf("replica %d has logged\n\t%s\nwant\n\t%s", i, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
}

// A replica says that it is ready for as long as it serves the sessions that are in use, and not a moment longer.
func TestAReplicaIsReadyUntilItRefusesKnownSessions(t *testing.T) {
	t.Parallel()
	const grace = 5 * time.Second
	store := newRedis(t, redisserver.Options{})
	r := newDeployment(t, store.URL(), newUpstream(t).URL(), "--outage-grace", grace.String(), "--request-rate", "0").Replicas[0]
	token := openSession(t, r.URL(), "2025-11-25")
	ping := func() int { return mustSend(t, post(r.URL(), token, pingBody)).status }
	ready := func() int {
		return mustSend(t, rawRequest{method: http.MethodGet, url: r.AdminURL("/readyz")}).status
	}
	for begun := time.Now(); time.Since(begun) < 3*time.Second; <-time.After(50 * time.Millisecond) {
		if got := ping(); got != http.StatusOK {
			t.Fatalf("while the store is there: %d", got)
		}
	}
	store.Kill()
	begun := time.Now()
	for was := http.StatusOK; was == http.StatusOK; <-time.After(5 * time.Millisecond) {
		before, served, after := ready(), ping(), ready()
		took := time.Since(begun)
		if served == http.StatusOK && before != http.StatusOK || served != http.StatusOK && after == http.StatusOK {
			t.Fatalf("%s after the store went away: /readyz says %d, the session is answered with %d, /readyz says %d", took, before, served, after)
		}
		if took > 2*grace {
			t.Fatalf("served for %s without the store, want %s", took, grace)
		}
		was = served
	}
	t.Logf("the session was served for %s without the store", time.Since(begun).Round(time.Millisecond))
}

// linesOf returns level and message of each line that a replica has logged, and whatever else it printed.
func linesOf(t *testing.T, r *replica.Replica) (lines []string) {
	t.Helper()
	for text := range strings.Lines(r.Output()) {
		var line struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			line.Level, line.Msg = "not a log line:", strings.TrimSpace(text)
		}
		lines = append(lines, line.Level+" "+line.Msg)
	}
	return lines
}

// countLines counts how often replicas have logged a line.
func countLines(replicas []*replica.Replica, line string) (n int) {
	level, message, _ := strings.Cut(line, " ")
	for _, r := range replicas {
		for text := range strings.Lines(r.Output()) {
			if strings.Contains(text, fmt.Sprintf(`"level":%q,"msg":%q`, level, message)) {
				n++
			}
		}
	}
	return n
}
