package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/admin"
)

// versionView is the JSON of version.
type versionView struct {
	Version string `json:"version"`
	Commit  string `json:"commit"` // empty: not known
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func newVersionCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "version",
		Short: "Print which version this is",
		Long: `Prints which version this is, of which commit, made by which Go, for which system.

JSON: {"version", "commit", "go", "os", "arch"}, the commit empty where it is not known.`,
		Args: noArgs,
	}
	output := addOutput(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := output.check(); err != nil {
			return err
		}
		b := build()
		view := versionView{Version: b.Version, Commit: b.Commit, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
		return output.write(command, view, func() string {
			lines := programName + " " + b.Version + "\n"
			if b.Commit != "" {
				lines += "commit " + b.Commit + "\n"
			}
			return fmt.Sprintf("%s%s %s/%s", lines, view.Go, view.OS, view.Arch)
		})
	}
	return command
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
