package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot/plotter"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/report"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/cluster"
)

// sample is what is there at one moment, of all replicas together.
type sample struct {
	At          float64 `json:"seconds"`
	Goroutines  float64 `json:"goroutines"`
	Heap        float64 `json:"live_heap_bytes"` // what the last collection of each replica left
	Files       float64 `json:"open_files"`
	Connections float64 `json:"redis_connections"`
	Memory      float64 `json:"redis_used_memory_bytes"`
	Sessions    float64 `json:"live_sessions"`
}

// look asks the replicas and Redis.
func (s *stage) look(ctx context.Context) (sample, error) {
	var now sample
	for _, r := range s.replicas {
		metrics, err := scrape(ctx, r.AdminURL("/metrics"))
		if err != nil {
			return now, err
		}
		now.Goroutines += metrics["go_goroutines"]
		now.Heap += metrics["go_memstats_next_gc_bytes"] / 2 // GOGC is 100: the next is due when there is twice as much
		now.Files += metrics["process_open_fds"]
	}
	memory, err := world.UsedMemory(ctx, s.client)
	if err != nil {
		return now, err
	}
	connections, err := world.Connections(ctx, s.client)
	if err != nil {
		return now, err
	}
	stats, err := s.store.Stats(ctx)
	now.Memory, now.Connections = float64(memory), float64(connections)
	now.Sessions = float64(stats.ByStatus[cluster.StatusActive] + stats.ByStatus[cluster.StatusInitializing])
	return now, err
}

// settled asks once the replicas have collected what garbage there is. A replica at rest does that every two minutes; here each is asked for
// its metrics again and again, which makes garbage, until it has collected twice since: the first time leaves what pools hold.
func (s *stage) settled(ctx context.Context) (sample, error) {
	ctx, stop := context.WithTimeoutCause(ctx, settleTimeout, fmt.Errorf("a replica has not collected its garbage for %s", settleTimeout))
	defer stop()
	for _, r := range s.replicas {
		first := math.Inf(1)
		for {
			metrics, err := scrape(ctx, r.AdminURL("/metrics"))
			if err != nil {
				return sample{}, errors.Join(err, context.Cause(ctx))
			}
			collections := metrics["go_gc_duration_seconds_count"]
			if first = min(first, collections); collections >= first+2 {
				break
			}
		}
	}
	return s.look(ctx)
}

// scrape reads metrics without labels.
func scrape(ctx context.Context, url string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	metrics := map[string]float64{}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, found := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); found && err == nil {
			metrics[name] = n
		}
	}
	if _, found := metrics["go_goroutines"]; !found {
		return nil, fmt.Errorf("%s does not tell go_goroutines", url)
	}
	return metrics, lines.Err()
}

// gauge is one of the things that must not grow.
type gauge struct {
	name  string
	unit  float64
	read  func(sample) float64
	slack float64 // in units: what a few more requests in flight make
}

var gauges = []gauge{
	{name: "goroutines", unit: 1, read: func(s sample) float64 { return s.Goroutines }, slack: 40},
	{name: "live heap, MiB", unit: 1 << 20, read: func(s sample) float64 { return s.Heap }, slack: 4},
	{name: "open files", unit: 1, read: func(s sample) float64 { return s.Files }, slack: 20},
	{name: "connections to Redis", unit: 1, read: func(s sample) float64 { return s.Connections }, slack: 10},
	{name: "Redis memory, MiB", unit: 1 << 20, read: func(s sample) float64 { return s.Memory }, slack: 1},
}

// growth is by how much a gauge may be higher in the last quarter than in the second one.
const growth = 1.15

// values reads a gauge in some samples.
func (g gauge) values(samples []sample) []float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = g.read(s) / g.unit
	}
	return values
}

// level is where a gauge is in some samples.
func (g gauge) level(samples []sample) float64 { return measure.Median(g.values(samples)) }

// tell prints how each gauge went, and returns what grew.
func tell(out io.Writer, before sample, seen []sample, left sample) []error {
	fmt.Fprintf(out, "%-22s  %10s  %14s  %12s  %10s\n", "", "BEFORE", "SECOND QUARTER", "LAST QUARTER", "AFTERWARDS")
	var faults []error
	n := len(seen)
	for _, g := range gauges {
		first, last, end := g.level(seen[n/4:n/2]), g.level(seen[n-n/4:]), g.read(left)/g.unit
		fmt.Fprintf(out, "%-22s  %10.1f  %14.1f  %12.1f  %10.1f\n", g.name, g.read(before)/g.unit, first, last, end)
		if last > first*growth+g.slack {
			faults = append(faults, fmt.Errorf("%s grew from %.1f to %.1f", g.name, first, last))
		}
		if end > max(first, g.read(before)/g.unit)*growth+g.slack {
			faults = append(faults, fmt.Errorf("%s: %.1f are left, %.1f were in use", g.name, end, first))
		}
	}
	return faults
}

// write writes the samples, and a plot of them.
func write(dir string, seen []sample) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // results are for everybody
		return err
	}
	encoded, err := json.MarshalIndent(seen, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "soak.json"), append(encoded, '\n'), 0o644); err != nil { //nolint:gosec // as above
		return err
	}
	chart := report.Chart{Title: "A soak: what is in use, over the median of the second quarter", X: "seconds", Y: "ratio", FromZero: true}
	for _, g := range gauges {
		base := measure.Median(g.values(seen[len(seen)/4 : len(seen)/2]))
		s := report.Series{Name: strings.TrimSuffix(g.name, ", MiB")}
		for _, at := range seen {
			s.Points = append(s.Points, plotter.XY{X: at.At, Y: g.read(at) / g.unit / base})
		}
		chart.Series = append(chart.Series, s)
	}
	return chart.Write(filepath.Join(dir, "soak.svg"))
}
