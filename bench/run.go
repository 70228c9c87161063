package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/report"
	"github.com/tapwire/shadowcat-cluster/bench/rows"
)

// options are what the command line says.
type options struct {
	plan     rows.Plan
	pairs    int
	only     *regexp.Regexp // the rows to measure; nil: all
	out      string         // a folder, empty: nothing is written
	docs     string         // a document to put the table into; empty: none
	isGate   bool
	listOnly bool
}

func parse(args []string, stderr io.Writer) (options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	isQuick := flags.Bool("quick", false, "measure coarsely, with at most 100,000 sessions, in about a minute")
	only := flags.String("only", "", "measure the rows alone whose names match this regular expression; see -list")
	o := options{}
	flags.IntVar(&o.pairs, "pairs", 5, "how many pairs are measured of each row, at least 1")
	flags.StringVar(&o.out, "out", "", "the folder for results.json and the plots; empty: they are not written")
	flags.StringVar(&o.docs, "docs", "", "the Markdown file whose table is to be replaced; empty: none")
	flags.BoolVar(&o.isGate, "gate", false, "fail for what is worse than half its goal alone: over twice an upper bound, under half a lower one")
	flags.BoolVar(&o.listOnly, "list", false, "list the rows and stop")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if *only != "" {
		o.only, err = regexp.Compile(*only)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("-only: %w", err)
	case o.pairs < 1:
		err = errors.New("-pairs must be at least 1")
	case flags.NArg() > 0:
		err = fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	o.plan = rows.Full()
	if *isQuick {
		o.plan = rows.Quick()
	}
	return o, err
}

// selected are the experiments that measure a row which is asked for.
func (o options) selected() []measure.Experiment {
	all := rows.All(o.plan)
	if o.only == nil {
		return all
	}
	return slices.DeleteFunc(all, func(e measure.Experiment) bool {
		return !slices.ContainsFunc(e.Rows, func(r measure.Row) bool { return o.only.MatchString(r.Name) })
	})
}

// run measures, and returns the exit status.
func run(ctx context.Context, stdout, stderr io.Writer, o options) (int, error) {
	experiments := o.selected()
	if o.listOnly {
		for _, e := range experiments {
			for _, r := range e.Rows {
				fmt.Fprintf(stdout, "%-28s  %s\n", r.Name, r.What)
			}
		}
		return 0, nil
	}
	if len(experiments) == 0 {
		return exitUsage, errors.New("no row has such a name; -list lists them")
	}
	machine, err := report.LookAround(ctx)
	if err != nil {
		return exitFailed, err
	}
	r := report.Report{Machine: machine, IsQuick: o.plan.Quick, Pairs: o.pairs}
	if err := measureAll(ctx, stderr, experiments, o.plan.Effort(o.pairs), &r); err != nil {
		return exitFailed, err
	}
	r.Table(stdout)
	if o.out != "" {
		if err := r.Write(o.out); err != nil {
			return exitFailed, err
		}
	}
	if o.docs != "" {
		if err := report.Splice(o.docs, "bench", r.Markdown()); err != nil {
			return exitFailed, err
		}
	}
	missed := r.Missed(o.isGate)
	if len(missed) > 0 {
		return exitMissed, errors.New("missed: " + strings.Join(missed, ", "))
	}
	return 0, nil
}

// measureAll does all experiments and adds what they show to the report.
func measureAll(ctx context.Context, stderr io.Writer, experiments []measure.Experiment, effort measure.Effort, r *report.Report) error {
	turns := 0
	for _, e := range experiments {
		turns += e.Turns(r.Pairs)
	}
	isWatched := isTerminal(stderr)
	bar := progressbar.NewOptions(turns, progressbar.OptionSetVisibility(isWatched),
		progressbar.OptionSetWriter(stderr), progressbar.OptionSetWidth(30), progressbar.OptionShowCount(),
		progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish())
	for _, e := range experiments {
		bar.Describe(fmt.Sprintf("%-24s", e.Name()))
		done, begun := 0, time.Now()
		measured, err := e.Run(ctx, effort, func() {
			done++
			_ = bar.Add(1) // only a picture
		})
		if err != nil {
			return err
		}
		_ = bar.Add(e.Turns(r.Pairs) - done)
		if !isWatched {
			fmt.Fprintf(stderr, "%-24s %4.0f s\n", e.Name(), time.Since(begun).Seconds())
		}
		r.Results = append(r.Results, measured...)
		if e.Curves != nil {
			r.Curves = append(r.Curves, e.Curves()...)
		}
	}
	return bar.Finish()
}

// isTerminal reports whether somebody watches. A bar in a log is a mess.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
