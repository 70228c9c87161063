// Package report tells what was measured: as a table, as JSON, and as plots.
package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// Machine is what it was measured on.
type Machine struct {
	CPU    string    `json:"cpu"`
	Cores  int       `json:"cores"`
	Memory string    `json:"memory"`
	System string    `json:"system"`
	Go     string    `json:"go"`
	Redis  string    `json:"redis"`
	At     time.Time `json:"at"`
}

// LookAround describes this machine.
func LookAround(ctx context.Context) (m Machine, err error) {
	m = Machine{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: field("/proc/meminfo", "MemTotal"),
		System: strings.TrimSpace(runtime.GOOS + "/" + runtime.GOARCH + " " + release()), Go: runtime.Version(), At: time.Now().UTC().Truncate(time.Second),
	}
	server, err := redisserver.Start(ctx, redisserver.Options{})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	client := server.Client()
	defer client.Close()
	m.Redis, err = world.Version(ctx, client)
	return m, err
}

// field reads a field of a file of Linux's /proc; elsewhere there is none.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func release() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// figureWidth keeps the printed table readable in a terminal of 150 columns.
const figureWidth = 40

// Report is one run.
type Report struct {
	Machine Machine          `json:"machine"`
	IsQuick bool             `json:"quick"`
	Pairs   int              `json:"pairs"`
	Results []measure.Result `json:"results"`
	Curves  []measure.Curve  `json:"curves,omitempty"`
}

// Table prints the report for people.
func (r Report) Table(w io.Writer) {
	fmt.Fprintln(w, r.summary())
	t := r.table()
	t.SetOutputMirror(w)
	t.Render()
	r.failures(w)
}

// Markdown is the report as part of a document.
func (r Report) Markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s of memory, %s, %s.\n\n%s\n", r.summary(), r.Machine.Memory, r.Machine.System, r.Machine.At.Format(time.DateOnly), r.table().RenderMarkdown())
	r.failures(&out)
	return out.String()
}

func (r Report) summary() string {
	kind := "a full run"
	if r.IsQuick {
		kind = "a quick run"
	}
	return fmt.Sprintf("%s, %d cores, %s, Redis %s; %s, medians of %d pairs", r.Machine.CPU, r.Machine.Cores, r.Machine.Go, r.Machine.Redis, kind, r.Pairs)
}

func (r Report) table() table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"row", "figure", "goal", "measured", "spread", "control", "noise", "result"})
	t.SetColumnConfigs([]table.ColumnConfig{
		{Name: "figure", WidthMax: figureWidth, WidthMaxEnforcer: text.WrapSoft},
		{Name: "goal", Align: text.AlignRight},
		{Name: "measured", Align: text.AlignRight},
		{Name: "control", Align: text.AlignRight},
		{Name: "noise", Align: text.AlignRight},
	})
	for _, result := range r.Results {
		t.AppendRow(row(result))
	}
	return t
}

// failures tells why figures could not be measured, or judged.
func (r Report) failures(w io.Writer) {
	if slices.ContainsFunc(r.Results, func(m measure.Result) bool { return m.Verdict == measure.Noisy }) {
		fmt.Fprintf(w, "noisy: in half of all pairs or more the control was off by over %.2fx, so that nothing can be said; measure these rows again on a quieter machine\n", measure.MaxNoise)
	}
	for _, result := range r.Results {
		switch {
		case result.Error != "":
			fmt.Fprintf(w, "%s: %s\n", result.Name, result.Error)
		case result.CutShort:
			fmt.Fprintf(w, "%s: %d pairs alone, as they took long\n", result.Name, len(result.Samples))
		}
	}
}

func row(r measure.Result) table.Row {
	goal, control, noise, measured, spread := "", "", "", "", ""
	if r.Goal != 0 {
		sign := "<= "
		if r.AtLeast {
			sign = ">= "
		}
		goal = sign + number(r.Goal, r.Unit)
	}
	if r.Control != 0 {
		control, noise = number(r.Control, ""), number(r.Noise, "x")
	}
	if len(r.Samples) > 0 {
		measured = number(r.Median, r.Unit)
		spread = number(r.Low, "") + " .. " + number(r.High, "")
	}
	return table.Row{r.Name, r.What, goal, measured, spread, control, noise, string(r.Verdict)}
}

// number writes a figure with about three digits.
func number(n float64, unit string) string {
	precision := 2
	switch {
	case n >= 100:
		precision = 0
	case n >= 10:
		precision = 1
	}
	written := strconv.FormatFloat(n, 'f', precision, 64)
	switch unit {
	case "":
		return written
	case "x":
		return written + "x"
	default:
		return written + " " + unit
	}
}

// Missed names the rows that missed their goals, and those too noisy to tell; with isGate those alone that missed them by far.
func (r Report) Missed(isGate bool) []string {
	var names []string
	for _, result := range r.Results {
		isMissed := result.Verdict == measure.Miss || result.Verdict == measure.Failed || result.Verdict == measure.Noisy
		if isGate {
			isMissed = result.FarOff()
		}
		if isMissed {
			names = append(names, result.Name)
		}
	}
	return names
}

// Write writes results.json and the plots into a folder, which is made if there is none.
func (r Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // results are for everybody
		return err
	}
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(encoded, '\n'), 0o644); err != nil { //nolint:gosec // as above
		return err
	}
	return r.plots(dir)
}
