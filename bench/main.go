// Command bench measures what Shadowcat Cluster costs, as ratios to what one would use instead: everything runs in turns, in one run,
// on one machine. It prints each figure with its goal, and writes results.json and plots.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tapwire/shadowcat-cluster/bench/world"
)

// The exit statuses, beside 0 for all goals kept.
const (
	exitMissed = 1 // a goal was missed, or a figure could not be measured
	exitUsage  = 2
	exitFailed = 3 // there are no results
)

func main() {
	world.Play()
	options, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		if err == flag.ErrHelp { //nolint:errorlint // as the package documents
			os.Exit(0)
		}
		os.Exit(exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := run(ctx, os.Stdout, os.Stderr, options)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(status)
}
