package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/integration/binary"
	"github.com/tapwire/shadowcat-cluster/integration/deployment"
	"github.com/tapwire/shadowcat-cluster/integration/everything"
	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
	"github.com/tapwire/shadowcat-cluster/integration/roundrobin"
)

// binaries is the folder of the commands under test, removed by TestMain.
var binaries string

func TestMain(m *testing.M) {
	var err error
	if binaries, err = os.MkdirTemp("", "shadowcat-integration-"); err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the commands under test:", err)
		os.Exit(1)
	}
	logging.Disable() // the Redis client logs every connection that a test breaks
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		contracts.print(os.Stdout)
		if err := os.RemoveAll(binaries); err != nil {
			fmt.Fprintln(os.Stderr, "remove the commands under test:", err)
		}
		os.Exit(code)
	}))
}

// The commands are built when the first test asks for them, once, and not at all when all tests skip.
var (
	productBinary = sync.OnceValues(func() (string, error) {
		return binary.Build(context.Background(), binaries, binary.ShadowcatCluster)
	})
	skewedBinary = sync.OnceValues(func() (string, error) {
		return binary.BuildSkewed(context.Background(), binaries, binary.ShadowcatCluster)
	})
	everythingBinary = sync.OnceValues(func() (string, error) {
		return binary.Build(context.Background(), binaries, binary.EverythingServer)
	})
)

// built returns the path of a command, building it if need be.
func built(t *testing.T, build func() (string, error)) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// requireRedis skips the test where there is no redis-server, and fails it where nothing may be skipped.
func requireRedis(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(redisserver.ErrNotInstalled)
	}
	t.Skipf("skipped: %v", redisserver.ErrNotInstalled)
}

// someDay is where the clocks that tests move begin.
var someDay = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// newClock makes a clock that stands at someDay, for servers of the test alone. It skips the test where there cannot be one,
// and fails it where nothing may be skipped.
func newClock(t *testing.T) *redisserver.Clock {
	t.Helper()
	clock, err := redisserver.NewClock(someDay)
	if errors.Is(err, redisserver.ErrNoClock) && os.Getenv("CI") != "true" {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, clock.Close))
	return clock
}

// newRedis starts a redis-server for the test alone.
func newRedis(t *testing.T, options redisserver.Options) *redisserver.Server {
	t.Helper()
	requireRedis(t)
	server, err := redisserver.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, server.Close))
	return server
}

// newStoppedRedis chooses an address for a redis-server that the test starts when it wants to.
func newStoppedRedis(t *testing.T) *redisserver.Server {
	t.Helper()
	requireRedis(t)
	server, err := redisserver.New(redisserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, server.Close))
	return server
}

// newUpstream starts an everything-server with sessions for the test alone.
func newUpstream(t *testing.T) *everything.Server {
	t.Helper()
	return startUpstream(t, everything.Options{Executable: built(t, everythingBinary)})
}

// newStatelessUpstream starts an everything-server of revision 2026-07-28 for the test alone.
func newStatelessUpstream(t *testing.T) *everything.Server {
	t.Helper()
	return startUpstream(t, everything.Options{Executable: built(t, everythingBinary), Stateless: true})
}

func startUpstream(t *testing.T, options everything.Options) *everything.Server {
	t.Helper()
	server, err := everything.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, server.Close))
	return server
}

// newDeployment starts three replicas between the front and the upstream.
func newDeployment(t *testing.T, redisURL, upstreamURL string, args ...string) *deployment.Deployment {
	t.Helper()
	d, err := deployment.Start(t.Context(), deployment.Options{
		Executable: built(t, productBinary),
		RedisURL:   redisURL,
		Upstream:   upstreamURL,
		Args:       args,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, d.Close))
	for _, r := range d.Replicas {
		watch(t, r)
	}
	return d
}

// newReplica chooses addresses for a replica that the test starts when it wants to.
func newReplica(t *testing.T, redisURL string, upstreams ...string) *replica.Replica {
	t.Helper()
	r, err := replica.New(replica.Options{Executable: built(t, productBinary), RedisURL: redisURL, Upstreams: upstreams})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	watch(t, r)
	return r
}

// newFront spreads requests over the given backends, each a "host:port".
func newFront(t *testing.T, backends ...string) *roundrobin.Front {
	t.Helper()
	front, err := roundrobin.Start(backends...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closer(t, front.Close))
	return front
}

// watch fails the test when the replica has panicked or raced, and prints what the replica said when the test fails.
func watch(t *testing.T, r *replica.Replica) {
	t.Cleanup(func() {
		output := r.Output()
		for _, sign := range []string{"panic: ", "WARNING: DATA RACE", "fatal error: "} {
			if strings.Contains(output, sign) {
				t.Errorf("the replica at %s printed %q", r.Address(), sign)
			}
		}
		if t.Failed() {
			t.Logf("the replica at %s printed:\n%s", r.Address(), withoutAudit(output))
		}
	})
}

// withoutAudit leaves out what happened to single sessions: with thousands of them nobody finds the rest.
func withoutAudit(output string) string {
	var kept strings.Builder
	for line := range strings.Lines(output) {
		if !strings.Contains(line, `"msg":"audit"`) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// closer makes a cleanup function of one that may fail.
func closer(t *testing.T, closeIt func() error) func() {
	return func() {
		if err := closeIt(); err != nil {
			t.Error(err)
		}
	}
}

// eventually waits until probe returns nil, at most limit, and returns how long it took.
func eventually(t *testing.T, limit time.Duration, probe process.Probe) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("not within "+limit.String()))
	defer cancel()
	if err := process.Poll(ctx, probe); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}
