package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
)

// The exit statuses. Scripts rely on them.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2 // the command line or the configuration is wrong: trying again changes nothing
	exitNotFound = 3 // the session does not exist
)

const programName = "shadowcat-cluster"

// helpColumns is where help texts are wrapped.
const helpColumns = 100

// usageError is a mistake in the command line or the configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usage marks err as the user's mistake: exit status 2. It keeps nil.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// run runs one command line and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	// What fails before a command starts (an unknown flag or command, a missing argument) is a usage error too, but
	// cobra has no type for it.
	started := false
	root := newRootCommand()
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "%s: %s\n", programName, strings.TrimRight(line, "\n"))
	}
	if !started {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", command.CommandPath())
	}
	return exitStatus(err, started)
}

func exitStatus(err error, started bool) int {
	_, isUsage := errors.AsType[usageError](err)
	switch {
	case isUsage || !started:
		return exitUsage
	case errors.Is(err, cluster.ErrNotFound):
		return exitNotFound
	default:
		return exitFailure
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   programName,
		Short: "Lets any number of MCP proxy replicas act as one",
		Long: `Shadowcat Cluster lets any number of MCP proxy replicas act as one: a client may send its next request
to any replica and keep its session. The replicas share their sessions through Redis.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 no such session.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ", fmt.Sprintf("Flags.FlagUsagesWrapped %d ", helpColumns)))
	root.SetVersionTemplate(programName + " {{.Version}}\n")
	root.AddCommand(newServeCommand(), newDemoCommand(), newSessionCommand(), newStatsCommand(), newLeaderCommand(), newReplicasCommand(), newPingCommand(),
		newVersionCommand())
	return root
}

// addSettings gives a command the flags of the settings that matter to it, and returns what reads all sources once the
// command runs. Errors of reading are usage errors.
func addSettings(command *cobra.Command, scope settings.Scope) (load func() (settings.Settings, error)) {
	flags := settings.NewFlags(scope)
	set := command.Flags()
	set.SortFlags = false
	file := set.String("config", "", "A YAML `file` of settings (also SHADOWCAT_CONFIG)")
	for _, f := range flags {
		name := f.Setting.Flag()
		set.Var(f, name, f.Usage())
		if f.Setting.Kind == settings.KindSwitch {
			set.Lookup(name).NoOptDefVal = "true"
		}
	}
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --"); unknown {
			return flags.UnknownFlag(name)
		}
		return err
	})
	return func() (settings.Settings, error) {
		s, err := settings.Load(settings.Sources{Flags: flags.Values(), Environ: os.Environ(), File: *file})
		return s, usage(err)
	}
}
