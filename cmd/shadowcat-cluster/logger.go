package main

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
)

// newLogger returns a logger that writes to w: one JSON object a line for machines, coloured text for a person.
func newLogger(w io.Writer, level slog.Level, format settings.LogFormat) *slog.Logger {
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
