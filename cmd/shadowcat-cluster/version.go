package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/admin"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which version this is",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			b := build()
			lines := programName + " " + b.Version + "\n"
			if b.Commit != "" {
				lines += "commit " + b.Commit + "\n"
			}
			_, err := fmt.Fprintf(command.OutOrStdout(), "%s%s %s/%s\n", lines, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// build says what this program was built from. A program that `go install module@version` made was given no version by
// the linker, but knows its module's. Go knows the commit by itself unless -buildvcs=false, as in some build systems.
func build() admin.Build {
	b := admin.Build{Version: version, Commit: commit}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; b.Version == "dev" && v != "" && v != "(devel)" {
		b.Version = v
	}
	if b.Commit != "" {
		return b
	}
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified && b.Commit != "" {
		b.Commit += "-dirty"
	}
	return b
}
