// Command kubernetes installs the chart into a real Kubernetes that it starts itself, on this machine, and breaks things there
// while official Go SDK clients talk to the replicas. It prints what each of those scenarios cost the clients, and fails when a
// request failed or a session was lost.
//
//	go run ./integration/kubernetes [-run REGEXP]
//
// It needs Linux, root, and the Debian packages that `make kubernetes` installs. All of it runs in namespaces of its own: process
// ids, mounts and network, so that nothing it starts or makes outlives it, however it ends. Where containers cannot run it says so,
// and lets kwok play the nodes: then the chart meets a real API, and no program runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

func main() { os.Exit(exitStatus(os.Args[1:])) }

// exitStatus runs the program and returns its exit status.
func exitStatus(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, args); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		return 1
	}
	return 0
}

// options are what the command line says.
type options struct {
	only   *regexp.Regexp // which scenarios to run
	fake   bool           // nodes that run nothing
	inside string         // the work folder, of the copy of this program that runs in the namespaces
}

func run(ctx context.Context, out io.Writer, args []string) error {
	var o options
	flags := flag.NewFlagSet("kubernetes", flag.ContinueOnError)
	only := flags.String("run", "", "run the scenarios whose names match this `regexp` (default: all)")
	flags.BoolVar(&o.fake, "fake", false, "have nodes that run nothing, as on a machine that cannot run containers")
	flags.StringVar(&o.inside, "inside", "", "the work `folder`; for the program's own use")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if o.inside != "" {
		return runScenarios(ctx, out, o)
	}
	if !o.fake {
		if err := checkMachine(ctx); err != nil {
			fmt.Fprintln(out, "No real node is possible here:", err)
			o.fake, args = true, append(args, "-fake")
		}
	}
	if o.fake {
		fmt.Fprintln(out, "The nodes are kwok's. They run nothing: whether clients notice anything is NOT tested.")
	}
	return runInNamespaces(ctx, out, o, args)
}
