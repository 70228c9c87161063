package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/report"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
)

const (
	// The load is the same however many replicas there are: so many sessions, each with so many requests a second, at each replica in turn.
	loadSessions = 100
	loadRate     = 300
	loadCallers  = 10
	// settled is when leases have grown to what sessions need.
	settled = 4 * time.Second
)

// replicaResult is what a number of replicas costs.
type replicaResult struct {
	Replicas int     `json:"replicas"`
	Requests float64 `json:"requests_per_second"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	// Calls are the scripts that Redis runs a second, of all replicas.
	Calls      float64 `json:"redis_scripts_per_second"`
	RedisCPU   float64 `json:"redis_cpu_us_per_request"`
	ReplicaCPU float64 `json:"replicas_cpu_us_per_request"`
	// Resident is the memory of all replicas.
	Resident float64 `json:"replicas_resident_bytes"`
}

func scaleReplicas(ctx context.Context, out io.Writer, p plan) ([]replicaResult, error) {
	executable, remove, err := world.BuildServe(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = remove() }()
	fmt.Fprintf(out, "%d sessions, %d requests a second, at each replica in turn\n%-9s %10s %8s %8s %14s %16s %18s %13s\n",
		loadSessions, loadRate, "REPLICAS", "REQUESTS/S", "P50", "P99", "REDIS CALLS/S", "REDIS CPU/REQ", "REPLICAS' CPU/REQ", "MEMORY EACH")
	var all []replicaResult
	for _, n := range []int{1, 2, 4, 8} {
		r, err := withReplicas(ctx, executable, n, p.length)
		if err != nil {
			return nil, fmt.Errorf("%d replicas: %w", n, err)
		}
		fmt.Fprintf(out, "%-9d %10.0f %5.2f ms %5.2f ms %14.0f %13.1f µs %15.0f µs %9.1f MiB\n",
			n, r.Requests, r.P50, r.P99, r.Calls, r.RedisCPU, r.ReplicaCPU, r.Resident/float64(n)/(1<<20))
		all = append(all, r)
	}
	return all, nil
}

func withReplicas(ctx context.Context, executable string, n int, length time.Duration) (result replicaResult, err error) {
	upstream, end, err := world.StartUpstream(ctx)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return result, err
	}
	server, err := redisserver.Start(ctx, redisserver.Options{})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	f := &farm{redis: server}
	defer f.close()
	for range n {
		r, err := replica.New(replica.Options{
			Executable: executable, RedisURL: server.URL(), Upstreams: []string{upstream + "/mcp"}, Args: []string{"--log-level", "warn"},
		})
		if err != nil {
			return result, err
		}
		f.replicas = append(f.replicas, r)
		if err := r.Start(ctx); err != nil {
			return result, err
		}
		f.clients = append(f.clients, world.NewClient(r.URL(), loadCallers))
	}
	if f.sessions, err = f.clients[0].Open(ctx, loadSessions); err != nil {
		return result, err
	}
	if _, err := f.load(settled).Run(ctx); err != nil {
		return result, err
	}
	return f.measure(ctx, length)
}

// farm is some replicas with their clients and sessions.
type farm struct {
	redis    *redisserver.Server
	replicas []*replica.Replica
	clients  []*world.Client
	sessions []string
	turn     atomic.Int64
}

func (f *farm) close() {
	for _, c := range f.clients {
		c.Close()
	}
	for _, r := range f.replicas {
		r.Kill()
	}
}

func (f *farm) load(length time.Duration) measure.Load {
	return measure.Load{Callers: loadCallers, Rate: loadRate, For: length, Do: func(ctx context.Context, caller, n int) error {
		client := f.clients[int(f.turn.Add(1))%len(f.clients)]
		return client.Call(ctx, f.sessions[(n*loadCallers+caller)%len(f.sessions)], world.Kind{})
	}}
}

// spent is what has been used so far.
type spent struct {
	calls           int64
	redis, replicas time.Duration
}

func (f *farm) spent(ctx context.Context) (s spent, err error) {
	client := f.redis.Client()
	defer client.Close()
	if s.calls, err = world.ScriptCalls(ctx, client); err != nil {
		return s, err
	}
	if s.redis, err = world.CPU(ctx, client); err != nil {
		return s, err
	}
	for _, r := range f.replicas {
		used, err := world.ProcessCPU(r.PID())
		if err != nil {
			return s, err
		}
		s.replicas += used
	}
	return s, nil
}

func (f *farm) measure(ctx context.Context, length time.Duration) (replicaResult, error) {
	before, err := f.spent(ctx)
	if err != nil {
		return replicaResult{}, err
	}
	latencies, err := f.load(length).Run(ctx)
	if err != nil {
		return replicaResult{}, err
	}
	after, err := f.spent(ctx)
	if err != nil {
		return replicaResult{}, err
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(latencies.Calls()) }
	result := replicaResult{
		Replicas: len(f.replicas), Requests: latencies.PerSecond(),
		P50: latencies.Quantile(0.5).Seconds() * 1000, P99: latencies.Quantile(0.99).Seconds() * 1000,
		Calls:    float64(after.calls-before.calls) * latencies.PerSecond() / float64(latencies.Calls()),
		RedisCPU: each(after.redis - before.redis), ReplicaCPU: each(after.replicas - before.replicas),
	}
	for _, r := range f.replicas {
		used, err := resident(r.PID())
		if err != nil {
			return result, err
		}
		result.Resident += float64(used)
	}
	return result, nil
}

// resident is the memory that a process has, in bytes. It needs Linux.
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("the process tells no VmRSS")
}

func replicaChart(all []replicaResult) report.Chart {
	calls, redis, replicas := report.Series{Name: "Redis calls a second"}, report.Series{Name: "Redis CPU a request"}, report.Series{Name: "replicas' CPU a request"}
	ticks := make([]plot.Tick, 0, len(all))
	first := all[0]
	for _, r := range all {
		x := float64(r.Replicas)
		ticks = append(ticks, plot.Tick{Value: x, Label: strconv.Itoa(r.Replicas)})
		calls.Points = append(calls.Points, plotter.XY{X: x, Y: r.Calls / first.Calls})
		redis.Points = append(redis.Points, plotter.XY{X: x, Y: r.RedisCPU / first.RedisCPU})
		replicas.Points = append(replicas.Points, plotter.XY{X: x, Y: r.ReplicaCPU / first.ReplicaCPU})
	}
	return report.Chart{
		Title: fmt.Sprintf("The same load (%d requests/s) at more replicas, over one", loadRate), X: "replicas", Y: "ratio",
		LogX: true, FromZero: true, Ticks: ticks, Series: []report.Series{calls, redis, replicas},
	}
}
