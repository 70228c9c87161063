package report_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/report"
)

func sample() report.Report {
	judge := func(row measure.Row, values ...float64) measure.Result {
		var samples []measure.Sample
		for _, v := range values {
			samples = append(samples, measure.Sample{Value: v, Control: 1})
		}
		return measure.Judge(row, samples, true)
	}
	return report.Report{
		IsQuick: true,
		Results: []measure.Result{
			judge(measure.Row{Name: "kept", Unit: "x", Goal: 1.05}, 1, 1.02),
			judge(measure.Row{Name: "missed", Unit: "x", Goal: 1.05}, 1.25, 1.5),
			judge(measure.Row{Name: "far-off", Unit: "x", Goal: 5, AtLeast: true}, 1),
			judge(measure.Row{Name: "later", Unit: "B", Goal: 700, NeedsFull: true}, 900),
			judge(measure.Row{Name: "peer", Unit: "x"}, 3),
			judge(measure.Row{Name: "broken", Goal: 1}),
			measure.Judge(measure.Row{Name: "unclear", Unit: "x", Goal: 1}, []measure.Sample{{Value: 9, Control: 0.25}}, true),
		},
		Curves: []measure.Curve{{Row: "kept", Lines: []measure.Line{{Name: "a", Quantiles: []measure.Quantile{{Share: 0, Milliseconds: 1}, {Share: 0.5, Milliseconds: 2}}}}}},
	}
}

func TestMissedNamesWhatMissedItsGoal(t *testing.T) {
	t.Parallel()
	for isGate, want := range map[bool][]string{false: {"missed", "far-off", "broken", "unclear"}, true: {"far-off", "broken"}} {
		if got := sample().Missed(isGate); !slices.Equal(got, want) {
			t.Errorf("missed, gate %t: %q, want %q", isGate, got, want)
		}
	}
}

func TestTheTableHasALineForEachRow(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	sample().Table(&out)
	for _, want := range []string{"<= 1.05x", "1.01x", "1.00 .. 1.02", "full run only", ">= 5.00x", "900 B", "broken: nothing was measured", "4.00x │ noisy", "noisy: in half of all pairs"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestWriteWritesResultsAndPlots(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "results")
	if err := sample().Write(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var read report.Report
	if err := json.Unmarshal(text, &read); err != nil || len(read.Results) != 7 || read.Results[1].Median != 1.375 || len(read.Results[1].Samples) != 2 {
		t.Errorf("results.json holds %+v, %v", read, err)
	}
	for _, name := range []string{"goals.svg", "kept.svg"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(text), "</svg>") {
			t.Errorf("%s is no SVG: %.100s, %v", name, text, err)
		}
	}
}

func TestSpliceReplacesWhatStandsBetweenItsComments(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte("# A page\n\n<!-- bench -->\nold\n<!-- /bench -->\n\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := report.Splice(file, "bench", sample().Markdown()); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	if !strings.HasPrefix(page, "# A page\n\n<!-- bench -->\n") || !strings.HasSuffix(page, "\n<!-- /bench -->\n\nmore\n") ||
		strings.Contains(page, "old") || strings.Count(page, "| row |") != 1 {
		t.Errorf("the page is\n%s", page)
	}
	if err := report.Splice(file, "other", ""); err == nil {
		t.Error("text was put where there is no place for it")
	}
}
