// Command kubernetes installs the chart into a real Kubernetes that it starts itself, on this machine, and breaks things there
// while official Go SDK clients talk to the replicas. It prints what each of those scenarios cost the clients, and fails when a
// request failed or a session was lost.
//
//	go run ./integration/kubernetes [-run REGEXP]
//
// It needs Linux, root, and the Debian packages that `make kubernetes` installs. All of it runs in namespaces of its own: process
// ids, mounts and network, so that nothing it starts or makes outlives it, however it ends.
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
	inside string         // the work folder, of the copy of this program that runs in the namespaces
}

func run(ctx context.Context, out io.Writer, args []string) error {
	var o options
	flags := flag.NewFlagSet("kubernetes", flag.ContinueOnError)
	only := flags.String("run", "", "run the scenarios whose names match this `regexp` (default: all)")
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
	return runInNamespaces(ctx, out, args)
}
