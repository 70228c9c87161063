// Command sweep measures what cleaning up costs a Redis and those who use it meanwhile. It fills two redis-servers of its
// own, one with many sessions and one with few, and lets a sweeper end as many of them in each, in turns, while callers
// lease others.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"
)

// The goals, of medians.
const (
	goalScriptHalf  = 500 * time.Microsecond // of one script, at the median
	goalScriptWorst = 2 * time.Millisecond   // at p99
	goalCallers     = 1.3                    // p99 of callers while a sweep runs, over idle
	goalSize        = 1.3                    // time of a sweep among many sessions, over one among few
)

// fewSessions are in the smaller server, beside those that come due.
const fewSessions = 1000

// plan is what to measure.
type plan struct {
	sessions, due, rounds, callers int
	pause                          time.Duration // of a caller between two calls
	idle                           time.Duration // of each look at callers without a sweep
}

func main() {
	var p plan
	flag.IntVar(&p.sessions, "sessions", 1_000_000, "how many sessions live in the greater server")
	flag.IntVar(&p.due, "due", 10_000, "how many more come due in each round, in either server")
	flag.IntVar(&p.rounds, "rounds", 5, "how many rounds; medians are told")
	flag.IntVar(&p.callers, "callers", 8, "how many callers lease sessions all the time")
	flag.DurationVar(&p.pause, "pause", 0, "how long each of them waits between two calls")
	flag.DurationVar(&p.idle, "idle", 2*time.Second, "for how long callers are timed without a sweep, before and after one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, p); err != nil {
		fmt.Fprintln(os.Stderr, "sweep:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func run(ctx context.Context, out io.Writer, p plan) (err error) {
	fmt.Fprintf(out, "%d sessions and %d, %d more due in each of %d rounds, %d callers, redis-server without persistence\n",
		p.sessions, fewSessions, p.due, p.rounds, p.callers)
	var sizes []*subject
	defer func() {
		for _, s := range sizes {
			err = cmp.Or(err, s.close())
		}
	}()
	for _, sessions := range []int{fewSessions, p.sessions} {
		begun := time.Now()
		s, err := newSubject(ctx, p, sessions)
		sizes = append(sizes, s)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "filled with %d in %s\n", sessions, time.Since(begun).Round(time.Second))
	}
	few, many := &figures{}, &figures{}
	for range p.rounds {
		for i, f := range []*figures{few, many} { // in turns: the machine may be busier later on
			if err := sizes[i].round(ctx, p, f); err != nil {
				return err
			}
		}
	}
	return report(out, p, few, many)
}

// figures are what was measured in all rounds of one server.
type figures struct {
	scripts []time.Duration // of the server's time, each script of every round
	sweeps  []time.Duration // until nothing was due, each round
	before  []time.Duration // p99 of callers before the sweep, each round
	during  []float64       // p99 while it ran, over before
	after   []float64       // p99 afterwards, over before: what the machine does by itself
}

func report(out io.Writer, p plan, few, many *figures) error {
	fmt.Fprintf(out, "\n%-46s  %12d  %12d  %10s\n", "SESSIONS", fewSessions, p.sessions, "GOAL")
	missed := false
	row := func(name string, few, many any, goal string, isMissed bool) {
		fmt.Fprintf(out, "%-46s  %12v  %12v  %10s\n", name, few, many, goal)
		missed = missed || isMissed
	}
	us := func(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }
	half, worst := quantile(many.scripts, 0.5), quantile(many.scripts, 0.99)
	row("one script, median", us(quantile(few.scripts, 0.5)), us(half), "<= 500µs", half > goalScriptHalf)
	row("one script, p99", us(quantile(few.scripts, 0.99)), us(worst), "<= 2ms", worst > goalScriptWorst)
	row("one script, the longest", us(quantile(few.scripts, 1)), us(quantile(many.scripts, 1)), "", false)
	row("scripts a round", len(few.scripts)/p.rounds, len(many.scripts)/p.rounds, "", false)
	sweepFew, sweepMany := quantile(few.sweeps, 0.5), quantile(many.sweeps, 0.5)
	ratio := sweepMany.Seconds() / sweepFew.Seconds()
	row("a sweep", us(sweepFew), us(sweepMany), "", false)
	row("a sweep, over one among few", "", fmt.Sprintf("%.2f", ratio), "<= 1.30", ratio > goalSize)
	row("callers' p99 before", us(quantile(few.before, 0.5)), us(quantile(many.before, 0.5)), "", false)
	during, after := quantile(many.during, 0.5), quantile(many.after, 0.5)
	noise := max(after-1, 1-after)
	row("callers' p99 while a sweep runs, over before", fmt.Sprintf("%.2f", quantile(few.during, 0.5)), fmt.Sprintf("%.2f", during), "<= 1.30",
		during > goalCallers+noise)
	row("callers' p99 afterwards, over before (control)", fmt.Sprintf("%.2f", quantile(few.after, 0.5)), fmt.Sprintf("%.2f", after), "", false)
	if missed {
		return fmt.Errorf("a goal was missed")
	}
	return nil
}

// quantile returns the value that a share of all values do not exceed.
func quantile[T cmp.Ordered](values []T, share float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}
