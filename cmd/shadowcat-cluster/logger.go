package main

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
)

// addAuditLog gives a command that changes sessions a flag, and returns what makes the logger of its audit records, nil for none.
// A person at a terminal is told by the command itself what has happened; anybody else may want to keep it.
func addAuditLog(command *cobra.Command) func() *slog.Logger {
	const name = "audit-log"
	wanted := command.Flags().Bool(name, false, "Log to stderr what happens to each session (default true where stderr is no terminal)")
	return func() *slog.Logger {
		stderr := command.ErrOrStderr()
		if command.Flags().Changed(name) && !*wanted || !command.Flags().Changed(name) && isTerminal(stderr) {
			return nil
		}
		return newLogger(stderr, slog.LevelInfo, settings.LogAuto)
	}
}

// newLogger returns a logger that writes to w: one JSON object a line for machines, coloured text for a person.
func newLogger(w io.Writer, level slog.Leveler, format settings.LogFormat) *slog.Logger {
	file, isFile := w.(*os.File)
	isTerminal := isFile && term.IsTerminal(int(file.Fd()))
	if format == settings.LogJSON || (format == settings.LogAuto && !isTerminal) {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{
		Level:      level,
		TimeFormat: time.TimeOnly,
		NoColor:    !isTerminal || os.Getenv("NO_COLOR") != "", // https://no-color.org
	}))
}
