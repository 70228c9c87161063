package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
)

// output is the --output flag of commands that answer with data.
type output struct {
	format     string
	forProgram string // the other format
}

func addOutput(command *cobra.Command) *output { return addOutputOr(command, "json") }

// addOutputOr adds the flag with another format for programs.
func addOutputOr(command *cobra.Command, forProgram string) *output {
	o := &output{forProgram: forProgram}
	command.Flags().StringVarP(&o.format, "output", "o", "table", "The `format` of the answer: table for people, "+forProgram+" for programs")
	return o
}

func (o *output) check() error {
	if o.format != "table" && o.format != o.forProgram {
		return usage(fmt.Errorf("--output: %q is not known; want table or %s", o.format, o.forProgram))
	}
	return nil
}

// write writes the data in the chosen format.
func (o *output) write(command *cobra.Command, data any, asTable func() string) error {
	out := command.OutOrStdout()
	if o.format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(data)
	}
	_, err := io.WriteString(out, asTable()+"\n")
	return err
}

// newTable returns a table without lines: columns two spaces apart, headers in capitals.
func newTable(header ...any) table.Writer {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	if len(header) > 0 {
		t.AppendHeader(header)
	}
	return t
}

// render renders t.
func render(t table.Writer) string { return trimLines(t.Render()) }

// trimLines drops the blanks that end lines.
func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n")
}

// right aligns columns of numbers, by their number from 1.
func right(columns ...int) []table.ColumnConfig {
	configs := make([]table.ColumnConfig, 0, len(columns))
	for _, n := range columns {
		configs = append(configs, table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	return configs
}

// visible makes text from outside safe for a terminal: a client may call itself an escape sequence.
func visible(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// ago says how long before now t was: 3m ago.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	if d < time.Second {
		return "now"
	}
	return roughly(d) + " ago"
}

// until says how long after now t is: in 3m.
func until(t, now time.Time) string {
	switch d := t.Sub(now); {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "now"
	default:
		return "in " + roughly(d)
	}
}

// roughly writes d in its largest unit, rounded down.
func roughly(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}
