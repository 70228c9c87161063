package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
	"github.com/tapwire/shadowcat-cluster/integration/sentinel"
	"github.com/tapwire/shadowcat-cluster/integration/tsclient"
)

const (
	// chaosCount is how many messages a call of the tool count sends before its answer, chaosCountInterval ms apart.
	chaosCount         = 5
	chaosCountInterval = 150
	// chaosPause is the pause of a client between two calls.
	chaosPause = 100 * time.Millisecond
	// chaosCallLimit is how long a call may take: it may lose a replica, and the one that it was resumed at, and so on.
	chaosCallLimit = time.Minute
	// chaosDuration is how long the faults go on, unless SHADOWCAT_CHAOS_SECONDS says otherwise.
	chaosDuration = 20 * time.Second
)

func chaosSeconds(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SHADOWCAT_CHAOS_SECONDS")
	if text == "" {
		return chaosDuration
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("SHADOWCAT_CHAOS_SECONDS is %q, want a whole number above 0", text)
	}
	return time.Duration(n) * time.Second
}

// Whatever dies, a client keeps its session, and each of its requests succeeds or gets an explicit answer.
func TestProxyChaosLosesNoSession(t *testing.T) {
	t.Parallel()
	w := newProxyChaosWorld(t)
	duration := chaosSeconds(t)
	w.run(t, duration, func(ctx context.Context, p *proxyChaos) {
		p.killReplicas(ctx, w.replicas)
		p.killUpstreams(ctx, w.upstreams)
		p.failOver(ctx, duration/2, w.store)
	})
}

// A rolling update is no fault to clients: each request is answered, and no stream misses a message.
func TestProxyChaosOfRollingRestartsLosesNoRequest(t *testing.T) {
	t.Parallel()
	w := newProxyChaosWorld(t, "--drain-delay", "1s")
	w.tally.isOrderly = true
	w.run(t, chaosSeconds(t), func(ctx context.Context, p *proxyChaos) { p.roll(ctx, w.replicas) })
}

// proxyChaosWorld is a store, upstreams and replicas behind a balancer.
type proxyChaosWorld struct {
	store     aSentinel
	prefix    string
	upstreams []*chaosUpstream
	effects   string
	replicas  []*replica.Replica
	front     *balancer
	tally     *chaosTally
}

func newProxyChaosWorld(t *testing.T, args ...string) *proxyChaosWorld {
	t.Helper()
	w := &proxyChaosWorld{prefix: freshPrefix(), tally: newChaosTally(), store: newSentinel(t, sentinel.Options{})}
	w.upstreams, w.effects = newChaosUpstreams(t, 2)
	for i := range 3 {
		r, err := replica.New(replica.Options{
			Executable: built(t, productBinary), ID: fmt.Sprintf("replica-%d", i), RedisURL: w.store.URL(storeUser),
			Upstreams: chaosUpstreamFlags(w.upstreams), // Without wait_replicas a failover may forget what had been acknowledged, and with it which messages had gone out.
			Args:      append([]string{"--prefix", w.prefix, "--audit-stream", "100000", "--wait-replicas", "1"}, args...),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Kill)
		watch(t, r)
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.replicas = append(w.replicas, r)
	}
	w.front = newBalancer(t, w.replicas, func() { w.tally.event("streams resumed through the balancer") })
	return w
}

// url is an upstream's, behind the balancer.
func (w *proxyChaosWorld) url(upstream string) string { return w.front.url + "/" + upstream + "/mcp" }

// chaosClient is a client with one session.
type chaosClient interface {
	// load makes requests until ctx is done.
	load(ctx context.Context, streams bool)
	// last makes sure that the session is still there.
	last(ctx context.Context) error
}

// run lets clients make requests while there are faults, and for a moment after.
func (w *proxyChaosWorld) run(t *testing.T, duration time.Duration, begin func(ctx context.Context, p *proxyChaos)) {
	t.Helper()
	listening, hangUp := context.WithCancel(t.Context())
	var background sync.WaitGroup
	defer background.Wait()
	defer hangUp()
	var clients []loadedClient
	var checks []*tickCheck
	for i, upstream := range []string{"stored", "stored", "plain", "json"} {
		name := fmt.Sprintf("raw-%d-%s", i, upstream)
		raw := newRawChaosClient(t, w.tally, name, w.url(upstream), upstream == "stored")
		w.startListening(listening, t, &background, raw)
		go1 := newSDKChaosClient(t, w.tally, fmt.Sprintf("go-%d-%s", i, upstream), w.url(upstream), upstream == "stored")
		clients = append(clients, loadedClient{rawKind, raw, upstream != "json"}, loadedClient{sdkKind, go1, upstream != "json"})
		checks = append(checks, raw.ticks, go1.ticks)
	}
	typescript, tsChecks := w.startTypeScript(t)
	checks = append(checks, tsChecks...)

	faults, quiet := context.WithTimeout(t.Context(), duration)
	defer quiet()
	chaos := &proxyChaos{t: t, tally: w.tally}
	begin(faults, chaos)
	loading, enough := context.WithTimeout(t.Context(), duration+time.Second)
	defer enough()
	var load sync.WaitGroup
	for _, c := range clients {
		load.Go(func() { c.load(loading, c.streams) })
	}
	chaos.faults.Wait()
	load.Wait()
	w.awaitStore(t)

	if typescript != nil {
		if err := typescript.Stop(); err != nil {
			t.Error(err)
		}
	}
	for _, c := range clients {
		if err := c.last(t.Context()); err != nil {
			w.tally.fault("the session is lost: %v", err)
			w.tally.count(c.kind, func(r *chaosRow) { r.lost++ })
		}
	}
	w.awaitTicks(t, checks)
	w.finish(t, chaos)
}

type loadedClient struct {
	kind string
	chaosClient
	streams bool // the upstream answers with streams
}

// startListening opens a raw client's own stream, and has the upstream send on it only then.
func (w *proxyChaosWorld) startListening(ctx context.Context, t *testing.T, background *sync.WaitGroup, c *rawChaosClient) {
	t.Helper()
	opened := make(chan struct{})
	background.Go(func() { c.listen(ctx, sync.OnceFunc(func() { close(opened) })) })
	receive(t, "own stream", opened)
	level := mustSend(t, post(c.url, c.token, `{"jsonrpc":"2.0","id":"level","method":"logging/setLevel","params":{"level":"info"}}`))
	if level.status != http.StatusOK {
		t.Fatalf("logging/setLevel: %s", level)
	}
}

// awaitTicks waits until every client is sent messages again: its own stream still works.
func (w *proxyChaosWorld) awaitTicks(t *testing.T, checks []*tickCheck) {
	t.Helper()
	before := make([]int, len(checks))
	for i, c := range checks {
		before[i] = c.count()
	}
	for i, c := range checks {
		if c.kind == tsKind {
			if c.count() == 0 {
				w.tally.fault("%s was sent no message of its own stream", c.client)
			}
			continue // it has ended
		}
		ctx, cancel := context.WithTimeout(t.Context(), recovery)
		err := process.Poll(ctx, func(context.Context) error {
			if c.count() <= before[i] {
				return errNotYet
			}
			return nil
		})
		cancel()
		if err != nil {
			w.tally.fault("%s is sent nothing of its own stream any more, after %d messages", c.client, c.count())
		}
	}
}

// finish judges.
func (w *proxyChaosWorld) finish(t *testing.T, chaos *proxyChaos) {
	t.Helper()
	if err := w.tally.checkEffects(w.effects); err != nil {
		t.Error(err)
	}
	for _, s := range w.store.Servers() {
		if s.Running() {
			n := countRecoveries(t, s, w.prefix)
			w.tally.mu.Lock()
			w.tally.events["sessions recovered"] = max(n, w.tally.events["sessions recovered"])
			w.tally.mu.Unlock()
		}
	}
	chaos.check(w.replicas)
	w.tally.verdict(t)
}

const tsKind = "TypeScript SDK"

// typescriptClient is installed when the first test asks for it, once.
var typescriptClient = sync.OnceValues(func() (tsclient.Client, error) { return tsclient.Install(context.Background()) })

// startTypeScript starts clients of the TypeScript SDK; nil where they cannot run.
func (w *proxyChaosWorld) startTypeScript(t *testing.T) (*tsclient.Run, []*tickCheck) {
	t.Helper()
	installed, err := typescriptClient()
	if errors.Is(err, tsclient.ErrMissing) && os.Getenv("CI") != "true" {
		// Only this part of the test is left out.
		t.Run("TypeScript SDK", func(t *testing.T) { t.Skipf("skipped: %v", err) })
		return nil, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	upstreams := []string{"stored", "plain"}
	var urls []string
	var checks []*tickCheck
	byName := make(map[string]*tickCheck)
	for i, upstream := range upstreams {
		urls = append(urls, w.url(upstream))
		name := fmt.Sprintf("ts-%d", i)
		byName[name] = newTickCheck(w.tally, tsKind, name, upstream == "stored")
		checks = append(checks, byName[name])
	}
	w.tally.count(tsKind, func(r *chaosRow) { r.clients = len(urls) })
	ready := make(chan struct{})
	run, err := installed.Start(func(line tsclient.Line) {
		switch line.Kind {
		case "ready":
			close(ready)
		case "tick":
			byName[line.Client].tick(line.Source, line.Number)
		case "call":
			w.tally.call(callOfTypeScript(line))
		case "last":
			if line.Error != "" {
				w.tally.fault("the session is lost: %s: %s", line.Client, line.Error)
				w.tally.count(tsKind, func(r *chaosRow) { r.lost++ })
			}
		case "fatal":
			w.tally.fault("the TypeScript clients: %s", line.Error)
		}
	}, urls...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(run.Kill)
	receive(t, "sign of life of the TypeScript clients", ready)
	return run, checks
}

// callOfTypeScript tells how a call of the TypeScript SDK ended.
func callOfTypeScript(line tsclient.Line) chaosCall {
	end := chaosCall{kind: tsKind, client: line.Client, tool: line.Tool, nonce: line.Nonce, detail: line.Error}
	for _, p := range line.Progress {
		end.progress = append(end.progress, chaosProgress{p.Nonce, p.Number})
	}
	answers := map[string]string{
		"add": fmt.Sprintf("%s %d", line.Nonce, line.Want), "effect": line.Nonce + " done", "count": fmt.Sprintf("%s %d", line.Nonce, chaosCount),
	}
	switch {
	case line.Error == "" && !line.IsError && line.Text == answers[line.Tool]:
		end.ended = endedOK
	case line.Reason != "":
		end.ended = line.Reason
	case line.Code == http.StatusBadGateway:
		end.ended = endedBroken
	default:
		end.ended, end.detail = endedFailed, fmt.Sprintf("%d %s %s", line.Code, line.Error, line.Text)
	}
	return end
}
