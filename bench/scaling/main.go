// Command scaling measures what becomes of costs as things grow: more replicas at the same load, more sessions in one store, and a store that
// is spread over the masters of a Redis Cluster.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/tapwire/shadowcat-cluster/bench/report"
	"github.com/tapwire/shadowcat-cluster/bench/world"
)

// plan is what to measure.
type plan struct {
	length   time.Duration // of each look at some replicas
	sessions int           // the most
	out      string
	docs     string
}

// results are all that was measured.
type results struct {
	Machine  report.Machine  `json:"machine"`
	Replicas []replicaResult `json:"replicas"`
	Sessions []sessionResult `json:"sessions"`
	Cluster  clusterResult   `json:"cluster"`
}

func main() {
	world.Play()
	var p plan
	flag.DurationVar(&p.length, "for", 15*time.Second, "how long each number of replicas is measured")
	flag.IntVar(&p.sessions, "sessions", 1_000_000, "how many sessions there are at most, at least 1000")
	flag.StringVar(&p.out, "out", "", "the folder for scaling.json and the plots; empty: they are not written")
	flag.StringVar(&p.docs, "docs", "", "the Markdown file whose results are to be replaced; empty: none")
	flag.Parse()
	if p.sessions < 1000 || p.length < time.Second {
		fmt.Fprintln(os.Stderr, "scaling: -sessions must be at least 1000, and -for at least 1s")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var printed bytes.Buffer
	err := run(ctx, io.MultiWriter(os.Stdout, &printed), p)
	if p.docs != "" {
		err = errors.Join(err, report.Splice(p.docs, "scaling", report.Code(printed.String())))
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, p plan) error {
	var all results
	var err error
	if all.Machine, err = report.LookAround(ctx); err != nil {
		return err
	}
	if all.Replicas, err = scaleReplicas(ctx, out, p); err != nil {
		return err
	}
	if all.Sessions, err = scaleSessions(ctx, out, p); err != nil {
		return err
	}
	if all.Cluster, err = spread(ctx, out); err != nil {
		return err
	}
	if p.out != "" {
		if err := all.write(p.out); err != nil {
			return err
		}
	}
	if all.Cluster.HottestPartition > maxHot {
		return fmt.Errorf("the hottest partition has %.2f times the sessions of the average, goal: at most %.1f", all.Cluster.HottestPartition, maxHot)
	}
	return nil
}

// write writes everything into a folder, which is made if there is none.
func (r results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // results are for everybody
		return err
	}
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "scaling.json"), append(encoded, '\n'), 0o644); err != nil { //nolint:gosec // as above
		return err
	}
	if err := replicaChart(r.Replicas).Write(filepath.Join(dir, "scaling-replicas.svg")); err != nil {
		return err
	}
	return sessionChart(r.Sessions).Write(filepath.Join(dir, "scaling-sessions.svg"))
}
