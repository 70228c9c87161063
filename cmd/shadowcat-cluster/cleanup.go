package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// defaultAbove is the share of a server's memory limit, in percent, that session cleanup --emergency leaves in use.
const defaultAbove = 90

func newSessionCleanupCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "cleanup",
		Short: "End and purge many sessions at once",
		Long: `Cleans up sessions, in small batches, beside replicas and their leader. What goes depends on the flags:

none              what the leader sweeps: sessions past their end become expired, records past their
                  retention are purged
conditions        live sessions that meet all conditions, then and at the moment they are ended, become
                  terminated (expired when past their end)
--ended, or       the records of ended sessions that meet all conditions are purged
an ended status
--emergency       while a server uses more than --above percent of its memory limit: first the records of
                  ended sessions are purged, the oldest first, then live sessions become evicted, the
                  longest idle first, that have been idle for --idle-for (default evict_min_idle)

On a terminal it asks first, elsewhere it needs --yes. An interrupt stops it after the batch under way; to
run it again is always safe. Exit status 1: not everything could be done.

JSON: {"ended": {STATUS: n}, "purged": n, "failed": n, "seconds": s}. With --dry-run: {"dry_run": true,
"actions": [{"action", "why", "sessions"}], "oldest": [...], "note"} with actions terminated, expired,
evicted and purged, and the fields of session list.`,
		Example: `  shadowcat-cluster session cleanup --dry-run
  shadowcat-cluster session cleanup --idle-for 2h --yes
  shadowcat-cluster session cleanup --status failed --older-than 1d
  shadowcat-cluster session cleanup --emergency --above 80`,
		Args: noArgs,
	}
	load := addSettings(command, settings.ScopeStore)
	output := addOutput(command)
	f := addCleanupFlags(command.Flags())
	audit := addAuditLog(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		s, err := load()
		job, jobErr := f.job(command.Flags().Changed, s.Cluster.EvictMinIdle)
		interactive := isTerminal(command.InOrStdin()) && isTerminal(command.ErrOrStderr())
		if err := errors.Join(err, jobErr, f.checkConsent(interactive), output.check()); err != nil {
			return err
		}
		return withAudit(command.Context(), s, audit(), func(store *redisstore.Store, _ *cluster.Manager, trail cluster.Trail) error {
			c := &cleaner{
				cleanupJob: job, store: store, timeout: max(s.Cluster.StoreTimeout, patience), trail: trail,
				progress: hidden{}, uncounted: f.yes && !f.dryRun,
			}
			if isTerminal(command.ErrOrStderr()) {
				c.progress, c.uncounted = newProgress(command.ErrOrStderr()), false
			}
			return f.run(command, c, output)
		})
	}
	return command
}

// cleanupFlags are the flags of session cleanup.
type cleanupFlags struct {
	conditions       *conditions
	ended, emergency bool
	force            bool
	above            int
	dryRun, yes      bool
}

func addCleanupFlags(flags *pflag.FlagSet) *cleanupFlags {
	f := &cleanupFlags{above: defaultAbove, conditions: addConditions(flags)}
	flags.BoolVar(&f.ended, "ended", false, "Purge records of ended sessions instead of ending live ones")
	flags.BoolVar(&f.emergency, "emergency", false, "Make room where the store's memory runs out")
	addNumber(flags, &f.above, "above", 99, "With --emergency: the share of its memory limit, in percent, that a server may use")
	flags.BoolVar(&f.force, "force", false, "With --emergency: end sessions with requests in flight, too")
	flags.BoolVar(&f.dryRun, "dry-run", false, "Only show what would go")
	flags.BoolVarP(&f.yes, "yes", "y", false, "Do not ask")
	return f
}

// job reads the flags. Flags that contradict each other are usage errors, and so are conditions that are empty: a script
// whose variable is not set would otherwise select every session.
func (f *cleanupFlags) job(changed func(name string) bool, evictMinIdle time.Duration) (cleanupJob, error) {
	job := cleanupJob{kind: cleanupDue, query: cluster.Query{Ended: f.ended, Limit: cleanupPage}}
	errs := []error{f.conditions.apply(&job.query)}
	for _, name := range []string{"status", "principal", "idle-for", "older-than"} {
		if !changed(name) {
			continue
		}
		job.kind = cleanupLive
		if name == "status" && f.conditions.status == "" || name == "principal" && f.conditions.principal == "" {
			errs = append(errs, usage(fmt.Errorf("--%s: is empty; leave it out to select all", name)))
		}
	}
	if f.ended || job.query.Ended {
		job.kind = cleanupEnded
	}
	if f.emergency {
		job.kind, job.force, job.above, job.minIdle = cleanupMemory, f.force, float64(f.above)/100, evictMinIdle
		if changed("idle-for") {
			job.minIdle = job.query.IdleFor
		}
	}
	return job, errors.Join(append(errs, f.contradictions(changed)...)...)
}

func (f *cleanupFlags) contradictions(changed func(name string) bool) (errs []error) {
	with, without := []string{"status", "principal", "older-than", "ended"}, []string{"above", "force"}
	if f.emergency {
		without = nil
	} else {
		with = nil
	}
	for _, name := range with {
		if changed(name) {
			errs = append(errs, usage(fmt.Errorf("--%s: does not go with --emergency, which picks by memory and idle time alone", name)))
		}
	}
	for _, name := range without {
		if changed(name) {
			errs = append(errs, usage(fmt.Errorf("--%s: goes with --emergency only", name)))
		}
	}
	if f.above < 1 || f.above > 99 {
		errs = append(errs, usage(fmt.Errorf("--above: %d is not in 1 to 99 percent", f.above)))
	}
	return errs
}

// checkConsent fails when nobody can be asked, before anything is looked at: a script must not work only as long as there
// is nothing to do.
func (f *cleanupFlags) checkConsent(interactive bool) error {
	if interactive || f.yes || f.dryRun {
		return nil
	}
	return usage(errors.New("nobody can be asked here, this is no terminal: say --yes, or --dry-run to see what would go"))
}

// run plans, asks, cleans up and tells.
func (f *cleanupFlags) run(command *cobra.Command, c *cleaner, output *output) error {
	ctx, stderr := command.Context(), command.ErrOrStderr()
	plan, err := c.plan(ctx)
	if err != nil {
		return err
	}
	if f.dryRun {
		return output.write(command, newCleanupPlanView(plan), func() string { return cleanupPlanTable(plan) })
	}
	if !plan.nothing() && !f.yes {
		if err := ask(command.InOrStdin(), stderr, c.question(plan)); err != nil {
			return err
		}
	}
	started := time.Now()
	var cleanErr error
	switch {
	case !plan.nothing():
		cleanErr = c.untilInterrupted(ctx, plan)
	case plan.note != "":
		fmt.Fprintln(stderr, plan.note)
	}
	c.done.took = time.Since(started)
	return errors.Join(output.write(command, newCleanupView(c.done), func() string { return cleanupTable(c.done) }), cleanErr)
}

// untilInterrupted cleans up until all is done, a signal comes or ctx ends, which is heeded before the next batch. A second signal ends
// the process at once, unless it repeats the first.
func (c *cleaner) untilInterrupted(ctx context.Context, plan cleanupPlan) error {
	ctx, restore := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer restore()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(signalRepeats, restore) })()
	err := c.execute(ctx, plan)
	if ctx.Err() != nil {
		err = errors.Join(err, errors.New("interrupted: what was done stays done; run it again to go on"))
	}
	return err
}

var errDeclined = errors.New("not confirmed: nothing was done")

// ask returns nil when the answer to a question is yes.
func ask(in io.Reader, out io.Writer, question string) error {
	fmt.Fprintf(out, "%s [y/N] ", question)
	var answer string
	if _, err := fmt.Fscanln(in, &answer); err != nil && answer == "" {
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(out) // the cursor is still behind the question
		}
		return errDeclined
	}
	switch strings.ToLower(answer) {
	case "y", "yes":
		return nil
	default:
		return errDeclined
	}
}
