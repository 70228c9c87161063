package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/demo"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
)

// newDemoCommand makes `shadowcat-cluster demo`.
func newDemoCommand() *cobra.Command {
	config := demo.Config{Replicas: 3}
	command := &cobra.Command{
		Use:   "demo",
		Short: "Run a whole cluster in this process, to try and to watch",
		Long: `Runs an embedded Redis, an example MCP server that keeps state, several replicas, and a front that hands
each request to the next replica, all in one process. Prints how to connect a client, and then a line
for each request: when, which replica, which session, what, and how it ended.

Nothing is authenticated, and nothing is kept unless in a Redis of your own: it is for one person on one
machine. Ctrl-C stops it.`,
		Example: `  shadowcat-cluster demo
  shadowcat-cluster demo --replicas 5 --listen 127.0.0.1:9000
  shadowcat-cluster demo --redis redis://127.0.0.1:6379`,
		Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return runDemo(command, config)
		},
	}
	flags := command.Flags()
	flags.StringVar(&config.Listen, "listen", "127.0.0.1:8080", "Address that clients connect to; port 0 takes a free one")
	addNumber(flags, &config.Replicas, "replicas", demo.MaxReplicas, "Number of replicas")
	flags.StringVar(&config.Redis, "redis", "", "URL of a Redis to use (default one inside this process)")
	return command
}

func runDemo(command *cobra.Command, config demo.Config) error {
	if err := config.Validate(); err != nil {
		return usage(err)
	}
	ctx, release := untilSignal(command.Context(), func() {})
	defer release()

	config.Build, config.Program = build(), os.Args[0]
	config.Out = command.OutOrStdout()
	config.Columns, config.Colour = terminal(config.Out)
	config.Logger = newLogger(command.ErrOrStderr(), slog.LevelWarn, settings.LogAuto)
	d, err := demo.New(ctx, config)
	if err != nil {
		return err
	}
	if err := d.Run(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(config.Out, "Stopped.")
	return nil
}

// terminal returns the width of the terminal that out is, 0 if it is none, and whether to write colours to it
// (https://no-color.org: not when NO_COLOR is set to anything).
func terminal(out io.Writer) (columns int, colour bool) {
	file, isFile := out.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) {
		return 0, false
	}
	columns, _, err := term.GetSize(int(file.Fd()))
	if err != nil || columns < 1 {
		columns = 80
	}
	return columns, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
