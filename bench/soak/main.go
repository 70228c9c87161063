// Command soak lets replicas serve mixed load for a long time, with sessions that are created, closed, abandoned and evicted all the while,
// and looks whether anything grows that should not: goroutines, heap, connections, Redis's memory. At the end nothing may be left, and
// records, indexes and counts must agree.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/tapwire/shadowcat-cluster/bench/report"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/cluster"
)

// plan is what to do.
type plan struct {
	length  time.Duration
	clients int
	out     string
	docs    string
}

func main() {
	world.Play()
	var p plan
	flag.DurationVar(&p.length, "for", 10*time.Minute, "how long the load lasts, at least 20s")
	flag.IntVar(&p.clients, "clients", 24, "how many clients there are at a time")
	flag.StringVar(&p.out, "out", "", "the folder for soak.json and soak.svg; empty: they are not written")
	flag.StringVar(&p.docs, "docs", "", "the Markdown file whose results are to be replaced; empty: none")
	flag.Parse()
	if p.length < 20*time.Second || p.clients < 1 {
		fmt.Fprintln(os.Stderr, "soak: -for must be at least 20s, and -clients at least 1")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var printed bytes.Buffer
	err := run(ctx, io.MultiWriter(os.Stdout, &printed), p)
	if p.docs != "" {
		err = errors.Join(err, report.Splice(p.docs, "soak", report.Code(printed.String())))
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, p plan) (err error) {
	s, err := startStage(ctx)
	defer func() { err = errors.Join(err, s.close()) }()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d clients for %s, %d replicas, at most %d sessions, idle timeout %s\n", p.clients, p.length, replicas, maxSessions, idleTimeout)
	before, err := s.settled(ctx)
	if err != nil {
		return err
	}
	seen, load, err := s.soak(ctx, p)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, load)
	left, err := s.settle(ctx)
	if err != nil {
		return err
	}
	stats, err := s.store.Stats(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ended: %d closed, %d expired, %d evicted, %d failed\n\n",
		stats.Ended[cluster.StatusClosed], stats.Ended[cluster.StatusExpired], stats.Ended[cluster.StatusEvicted], stats.Ended[cluster.StatusFailed])
	faults := tell(out, before, seen, left)
	violations, err := s.store.Violations(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d violations of what the store guarantees\n", len(violations))
	if p.out != "" {
		if err := write(p.out, seen); err != nil {
			return err
		}
	}
	faults = append(faults, load.check())
	for _, v := range violations {
		faults = append(faults, errors.New(v))
	}
	return errors.Join(faults...)
}
