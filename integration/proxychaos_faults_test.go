package integration_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/binary"
	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
)

const (
	replicaKillInterval  = 2 * time.Second
	upstreamKillInterval = 10 * time.Second
	upstreamDowntime     = 300 * time.Millisecond
	// storeRecovery is how long sentinels on a busy machine may take for a failover: those that were themselves held up watch only, for
	// half a minute.
	storeRecovery = 2 * time.Minute
)

var upstreamBinary = sync.OnceValues(func() (string, error) {
	return binary.Build(context.Background(), binaries, "github.com/tapwire/shadowcat-cluster/integration/upstreamserver")
})

// chaosUpstream is one endpoint of the upstreams, which comes back at the same address.
type chaosUpstream struct {
	address string
	command process.Command
	process *process.Process
}

// newChaosUpstreams starts n endpoints whose effects are noted in one file.
func newChaosUpstreams(t *testing.T, n int) (endpoints []*chaosUpstream, effects string) {
	t.Helper()
	effects = filepath.Join(t.TempDir(), "effects")
	for range n {
		address, err := process.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		u := &chaosUpstream{address: address, command: process.Command{
			Name: "upstream at " + address, Path: built(t, upstreamBinary), Args: []string{"-listen", address, "-effects", effects},
		}}
		if err := u.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.process.Kill() })
		endpoints = append(endpoints, u)
	}
	return endpoints, effects
}

func (u *chaosUpstream) start(ctx context.Context) (err error) {
	if u.process, err = process.Start(u.command); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return u.process.WaitReady(ctx, process.Listening(u.address))
}

// chaosUpstreamFlags are the upstreams of a replica: the same endpoints, by the paths they serve.
func chaosUpstreamFlags(endpoints []*chaosUpstream) []string {
	var flags []string
	for _, path := range []string{"stored", "plain", "json"} {
		var urls []string
		for _, u := range endpoints {
			urls = append(urls, "http://"+u.address+"/"+path)
		}
		flags = append(flags, path+"="+strings.Join(urls, ","))
	}
	return flags
}

// proxyChaos makes faults, each kind in a goroutine of its own, until its context is done.
type proxyChaos struct {
	t      *testing.T
	tally  *chaosTally
	faults sync.WaitGroup
	output replicaOutput
}

// replicaOutput keeps what replicas printed before they died, as far as it tells of a mistake of theirs.
type replicaOutput struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

func (o *replicaOutput) keep(r *replica.Replica) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range strings.Lines(r.Output()) {
		isError := strings.Contains(line, `"level":"ERROR"`) && !strings.Contains(line, "the store cannot be reached")
		if isError || strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") {
			o.kept.WriteString(r.Address() + ": " + line)
		}
	}
}

// every calls do at each interval until ctx is done, and not again before it has returned.
func (p *proxyChaos) every(ctx context.Context, interval time.Duration, do func(ctx context.Context, turn int) error) {
	p.faults.Go(func() {
		clock := time.NewTicker(interval)
		defer clock.Stop()
		for turn := 0; ; turn++ {
			select {
			case <-clock.C:
			case <-ctx.Done():
				return
			}
			if err := do(context.WithoutCancel(ctx), turn); err != nil {
				p.t.Error(err)
			}
		}
	})
}

// killReplicas kills one replica after the other and starts it again at once.
func (p *proxyChaos) killReplicas(ctx context.Context, replicas []*replica.Replica) {
	p.every(ctx, replicaKillInterval, func(ctx context.Context, turn int) error {
		r := replicas[turn%len(replicas)]
		p.output.keep(r)
		r.Kill()
		p.tally.event("replicas killed")
		return r.Start(ctx)
	})
}

// killUpstreams kills each endpoint at each interval, one some time after the other, and starts it again a moment later.
func (p *proxyChaos) killUpstreams(ctx context.Context, endpoints []*chaosUpstream) {
	p.every(ctx, upstreamKillInterval/time.Duration(len(endpoints)), func(ctx context.Context, turn int) error {
		u := endpoints[turn%len(endpoints)]
		u.process.Kill()
		p.tally.event("upstream endpoints killed")
		<-time.After(upstreamDowntime)
		return u.start(ctx)
	})
}

// failOver kills the primary of the store after some time, and waits for the next one.
func (p *proxyChaos) failOver(ctx context.Context, after time.Duration, at aSentinel) {
	p.faults.Go(func() {
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return
		}
		primary, err := at.Primary(context.WithoutCancel(ctx))
		if err != nil {
			p.t.Error(err)
			return
		}
		primary.Kill()
		p.tally.event("failovers of the store")
		waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeRecovery)
		defer cancel()
		err = process.Poll(waiting, func(ctx context.Context) error {
			if next, err := at.Primary(ctx); err != nil || next == primary {
				return cmp.Or(err, errNotYet)
			}
			return nil
		})
		if err != nil {
			p.t.Errorf("the store did not fail over: %v", err)
		}
	})
}

// awaitStore waits until each replica has the store: it opens sessions.
func (w *proxyChaosWorld) awaitStore(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), storeRecovery)
	defer cancel()
	for _, r := range w.replicas {
		err := process.Poll(ctx, func(ctx context.Context) error {
			got, err := post("http://"+r.Address()+"/json/mcp", "", initializeBody("2025-11-25")).send(ctx)
			if err == nil && got.status != http.StatusOK {
				err = fmt.Errorf("initialize: %s", got)
			}
			return err
		})
		if err != nil {
			t.Errorf("the replica at %s has no store: %v", r.Address(), err)
		}
	}
}

// roll restarts one replica after the other, as a rolling update does, without a pause.
func (p *proxyChaos) roll(ctx context.Context, replicas []*replica.Replica) {
	p.every(ctx, replicaKillInterval, func(ctx context.Context, turn int) error {
		r := replicas[turn%len(replicas)]
		err := r.Stop()
		p.output.keep(r)
		if err != nil {
			return err
		}
		p.tally.event("replicas stopped")
		return r.Start(ctx)
	})
}

// check fails the test for what replicas should not have printed.
func (p *proxyChaos) check(replicas []*replica.Replica) {
	for _, r := range replicas {
		p.output.keep(r)
	}
	if text := p.output.kept.String(); text != "" {
		p.t.Errorf("replicas printed:\n%.4000s", text)
	}
}

// countRecoveries counts the sessions that were given a new upstream session, by the store's audit records.
func countRecoveries(t *testing.T, server *redisserver.Server, prefix string) (recovered int) {
	t.Helper()
	client := server.Client()
	defer client.Close()
	records, err := client.XRange(t.Context(), prefix+":audit", "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		if record.Values["action"] == "recovered" {
			recovered++
		}
	}
	return recovered
}
