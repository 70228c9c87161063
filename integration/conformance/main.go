// Command conformance runs the official MCP conformance runner twice, directly against the Go SDK's everything-server and through
// three replicas of Shadowcat Cluster on a real redis-server, and fails when the two differ in a single check.
//
//	go run ./integration/conformance [--revision 2025-11-25] [--verbose]
//
// It needs redis-server, npm and, on other systems than Linux on x86-64, Node 22. Where one is missing it says so and is
// content, unless CI=true.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/binary"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

func main() { os.Exit(exitStatus(os.Args[1:])) }

// exitStatus runs the program and returns its exit status.
func exitStatus(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Stdout, args)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errMissing) && os.Getenv("CI") != "true":
		fmt.Fprintln(os.Stderr, "conformance: skipped:", err)
		return 0
	default:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
}

// errMissing says that the machine lacks something that the program cannot bring along.
var errMissing = errors.New("the machine lacks what conformance needs")

// errDifferent says that the runner found something else through the replicas than directly.
var errDifferent = errors.New("not the same through three replicas as directly")

func run(ctx context.Context, out io.Writer, args []string) error {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	only := flags.String("revision", "", "run one revision: "+strings.Join(revisionNames(), " or ")+" (default: all)")
	verbose := flags.Bool("verbose", false, "print what the runner prints")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *only != "" && !slices.Contains(revisionNames(), *only) {
		return fmt.Errorf("--revision %s: want %s", *only, strings.Join(revisionNames(), " or "))
	}
	b, err := prepare(ctx, out)
	if err != nil {
		return err
	}
	defer b.close()
	if *verbose {
		b.log = out
	}

	var failed error
	for _, r := range revisions {
		if *only != "" && *only != r.name {
			continue
		}
		if err := b.compare(ctx, out, r); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", r.name, err))
		}
	}
	return failed
}

// prepare looks for what the machine must have, then installs the runner and builds the commands.
func prepare(ctx context.Context, out io.Writer) (*bench, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, fmt.Errorf("%w: %w", errMissing, redisserver.ErrNotInstalled)
	}
	start := time.Now()
	runner, err := install(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "shadowcat-conformance-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for commands and results: %w", err)
	}
	b := &bench{dir: dir, runner: runner, log: io.Discard}
	for importPath, executable := range map[string]*string{
		binary.EverythingServer: &b.everything,
		binary.ShadowcatCluster: &b.product,
	} {
		if *executable, err = binary.Build(ctx, dir, importPath); err != nil {
			b.close()
			return nil, err
		}
	}
	fmt.Fprintf(out, "prepared in %s\n", time.Since(start).Round(time.Second))
	return b, nil
}
