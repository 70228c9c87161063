package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/report"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	sampleTime = 2 * time.Second // of each kind of call
	pageSize   = 100
	due        = 2000 // sessions in a sweep
)

// sessionResult is what calls cost among so many sessions, in microseconds: medians of calls that one caller makes.
type sessionResult struct {
	Sessions int     `json:"sessions"`
	Create   float64 `json:"create_us"`
	Lease    float64 `json:"lease_us"`
	List     float64 `json:"list_page_us"`
	Sweep    float64 `json:"sweep_us_per_session"`
	Memory   float64 `json:"redis_bytes_per_session"`
}

func scaleSessions(ctx context.Context, out io.Writer, p plan) (all []sessionResult, err error) {
	fmt.Fprintf(out, "\n%-9s %10s %10s %14s %16s %15s\n", "SESSIONS", "CREATE", "LEASE", "LIST A PAGE", "SWEEP, EACH", "MEMORY, EACH")
	for n := 1000; n <= p.sessions; n *= 10 {
		r, err := withSessions(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("%d sessions: %w", n, err)
		}
		fmt.Fprintf(out, "%-9d %7.0f µs %7.0f µs %11.0f µs %13.1f µs %13.0f B\n", n, r.Create, r.Lease, r.List, r.Sweep, r.Memory)
		all = append(all, r)
	}
	return all, nil
}

func withSessions(ctx context.Context, n int) (result sessionResult, err error) {
	cfg := world.Limits()
	cfg.IdleTimeout, cfg.InitializeTimeout = cfg.MaxAge, time.Hour
	store, err := world.StartStore(ctx, cfg, 64)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if _, err := store.Fill(ctx, 100, world.Initialize); err != nil { // what the first sessions cost is the store's, not their own
		return result, err
	}
	before, err := world.UsedMemory(ctx, store.Client)
	if err != nil {
		return result, err
	}
	population, err := store.Fill(ctx, n, world.Initialize)
	if err != nil {
		return result, err
	}
	after, err := world.UsedMemory(ctx, store.Client)
	if err != nil {
		return result, err
	}
	result.Sessions, result.Memory = n, float64(after-before)/float64(n)
	for _, kind := range []struct {
		figure *float64
		do     func(ctx context.Context, i int) error
	}{
		{&result.Lease, func(ctx context.Context, i int) error {
			_, err := store.Store.Lease(ctx, population.Call(i*7919%n)) // here and there
			return err
		}},
		{&result.List, func(ctx context.Context, _ int) error {
			_, err := store.Store.List(ctx, cluster.Query{Limit: pageSize})
			return err
		}},
		{&result.Create, func(ctx context.Context, _ int) error {
			_, err := store.Create(ctx, world.Initialize)
			return err
		}},
	} {
		if *kind.figure, err = median(ctx, kind.do); err != nil {
			return result, err
		}
	}
	result.Sweep, err = sweepEach(ctx, store, cfg)
	return result, err
}

// median is the median time of a call, in microseconds.
func median(ctx context.Context, do func(ctx context.Context, i int) error) (float64, error) {
	latencies, err := measure.Load{Callers: 1, For: sampleTime, Do: func(ctx context.Context, _, n int) error {
		return do(ctx, n)
	}}.Run(ctx)
	return float64(latencies.Quantile(0.5).Nanoseconds()) / 1000, err
}

// sweepEach lets sessions come due, and returns the time in which each is ended, in microseconds.
func sweepEach(ctx context.Context, store *world.Store, cfg cluster.Config) (float64, error) {
	doomed, err := store.Fill(ctx, due, world.Initialize)
	if err != nil {
		return 0, err
	}
	cfg.Lease, cfg.IdleTimeout = 0, time.Millisecond
	cfg.ReportInterval, cfg.ReportSlack = 10*time.Millisecond, 10*time.Millisecond
	hasty, err := store.Open(redisstore.Options{Config: cfg})
	if err != nil {
		return 0, err
	}
	err = world.InParallel(ctx, 16, due, func(ctx context.Context, i int) error {
		_, err := hasty.Lease(ctx, doomed.Call(i))
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := measure.Wait(ctx, 20*time.Millisecond); err != nil {
		return 0, err
	}
	begun, ended := time.Now(), 0
	for {
		swept, err := hasty.Sweep(ctx, cluster.SweepCall{Limit: 100})
		if err != nil {
			return 0, err
		}
		if ended += len(swept.Expired); !swept.More {
			break
		}
	}
	if ended != due {
		return 0, fmt.Errorf("a sweep ended %d sessions, %d were due", ended, due)
	}
	return float64(time.Since(begun).Microseconds()) / due, nil
}

func sessionChart(all []sessionResult) report.Chart {
	create, lease, list, sweep := report.Series{Name: "create"}, report.Series{Name: "lease"}, report.Series{Name: "list 100"}, report.Series{Name: "sweep, a session"}
	for _, r := range all {
		x := float64(r.Sessions)
		create.Points = append(create.Points, plotter.XY{X: x, Y: r.Create})
		lease.Points = append(lease.Points, plotter.XY{X: x, Y: r.Lease})
		list.Points = append(list.Points, plotter.XY{X: x, Y: r.List})
		sweep.Points = append(sweep.Points, plotter.XY{X: x, Y: r.Sweep})
	}
	return report.Chart{
		Title: "What calls take among more and more sessions, medians, one caller", X: "sessions", Y: "µs",
		LogX: true, LogY: true, Series: []report.Series{create, lease, list, sweep},
	}
}
