package integration_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"testing"

	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// A session in steady use is served from leases: the store hears a report now and then, not each request.
func TestAHotSessionCostsTheStoreNothing(t *testing.T) {
	t.Parallel()
	const requests = 600
	used := storeScripts(t, requests)
	t.Logf("%d requests, %d scripts", requests, used)
	// About two reports a second of each replica, whatever the requests.
	if used > requests/5 {
		t.Errorf("%d requests ran %d scripts in the store, want next to none", requests, used)
	}
}

// Without leases each request asks the store.
func TestInStrictModeEachRequestAsksTheStore(t *testing.T) {
	t.Parallel()
	const requests = 100
	if used := storeScripts(t, requests, "--lease=0"); used < requests {
		t.Errorf("%d requests ran %d scripts in the store, want at least one for each", requests, used)
	}
}

// storeScripts sends requests of one session through a deployment and returns how many scripts the store ran for them.
func storeScripts(t *testing.T, requests int, args ...string) int {
	t.Helper()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newUpstream(t).URL(), append(args, "--request-rate=0")...)
	token := openSession(t, d.URL(), "2025-11-25")
	send := func(n int) {
		for range n {
			if got := mustSend(t, post(d.URL(), token, pingBody)); got.status != http.StatusOK {
				t.Fatalf("ping: got %s, want 200", got)
			}
		}
	}
	send(2 * len(d.Replicas)) // so that each replica has its lease
	before := scriptsRun(t, store)
	send(requests)
	return scriptsRun(t, store) - before
}

// scriptsRun returns how many scripts the server has run since it was started.
func scriptsRun(t *testing.T, store *redisserver.Server) int {
	t.Helper()
	client := store.Client()
	defer client.Close()
	stats, err := client.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, command := range []string{"eval", "evalsha", "eval_ro", "evalsha_ro"} {
		match := regexp.MustCompile(fmt.Sprintf(`cmdstat_%s:calls=(\d+)`, command)).FindStringSubmatch(stats)
		if match == nil {
			continue
		}
		calls, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		total += calls
	}
	return total
}
