package helm_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// metric is what docs/metrics.md, which is made from the program's own table, says of one.
type metric struct {
	isHistogram bool
	isShared    bool                // the same at every replica
	labels      map[string][]string // the values that there can be; none where they are not listed
}

var (
	labelLine = regexp.MustCompile("^- Label `([a-z_]+)`(.*)$")
	listed    = regexp.MustCompile("^: ((?:`[^`]+`(?:, )?)+)\\.")
	quoted    = regexp.MustCompile("`([^`]+)`")
)

// documented reads all metrics of the program.
func documented(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := map[string]metric{}
	name := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if heading, ok := strings.CutPrefix(line, "### "); ok {
			name = heading
			metrics[name] = metric{labels: map[string][]string{}}
			continue
		}
		m, known := metrics[name]
		if !known {
			continue
		}
		kind, _, _ := strings.Cut(line, ".")
		if strings.HasPrefix(kind, "Counter") || strings.HasPrefix(kind, "Gauge") || strings.HasPrefix(kind, "Histogram") {
			m.isHistogram, m.isShared = strings.HasPrefix(kind, "Histogram"), strings.Contains(kind, "**shared**")
		}
		if label := labelLine.FindStringSubmatch(line); label != nil {
			var values []string
			if list := listed.FindStringSubmatch(label[2]); list != nil {
				for _, value := range quoted.FindAllStringSubmatch(list[1], -1) {
					values = append(values, value[1])
				}
			}
			m.labels[label[1]] = values
		}
		metrics[name] = m
	}
	if len(metrics) < 30 || !metrics["shadowcat_sessions"].isShared || !slices.Contains(metrics["shadowcat_sessions"].labels["status"], "active") {
		t.Fatalf("docs/metrics.md is not understood: %v", metrics)
	}
	return metrics
}

// usualLabels are Prometheus's own, and those of a scrape.
var usualLabels = []string{"__name__", "namespace", "job", "instance", "pod"}

// checkExpression checks that an expression can be parsed, and asks for metrics, labels and values that there are.
func checkExpression(t *testing.T, where, text string, known map[string]metric) {
	t.Helper()
	expression, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	parser.Inspect(expression, func(node parser.Node, path []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			checkSelector(t, where, n, known)
			if base, _ := baseMetric(n.Name, known); known[base].isShared && isSummed(path) {
				t.Errorf("%s sums %s over replicas, at each of which it is the same", where, n.Name)
			}
		case *parser.AggregateExpr:
			for _, label := range n.Grouping {
				if !hasLabel(n, label, known) {
					t.Errorf("%s groups by %s, which no metric in it has", where, label)
				}
			}
		}
		return nil
	})
}

// baseMetric is the metric that a name is of, and the suffix of a histogram's series.
func baseMetric(name string, known map[string]metric) (base, suffix string) {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && known[base].isHistogram {
			return base, suffix
		}
	}
	return name, ""
}

func checkSelector(t *testing.T, where string, selector *parser.VectorSelector, known map[string]metric) {
	t.Helper()
	if strings.HasPrefix(selector.Name, "go_") || strings.HasPrefix(selector.Name, "process_") {
		return // of the Go runtime and the process
	}
	base, suffix := baseMetric(selector.Name, known)
	m, found := known[base]
	if !found || m.isHistogram && suffix == "" {
		t.Errorf("%s asks for %q, which the program does not have", where, selector.Name)
		return
	}
	for _, matcher := range selector.LabelMatchers {
		values, has := m.labels[matcher.Name]
		switch {
		case slices.Contains(usualLabels, matcher.Name):
		case !has:
			t.Errorf("%s: %s has no label %q", where, selector.Name, matcher.Name)
		case len(values) > 0:
			for value := range strings.SplitSeq(matcher.Value, "|") {
				if !slices.Contains(values, value) {
					t.Errorf("%s: the label %s of %s is never %q", where, matcher.Name, selector.Name, value)
				}
			}
		}
	}
}

// isSummed reports whether a sum above a selector adds up replicas.
func isSummed(path []parser.Node) bool {
	return slices.ContainsFunc(path, func(node parser.Node) bool {
		sum, ok := node.(*parser.AggregateExpr)
		return ok && sum.Op == parser.SUM && !sum.Without && !slices.Contains(sum.Grouping, "instance")
	})
}

// hasLabel reports whether some metric below a node has a label.
func hasLabel(below parser.Node, label string, known map[string]metric) bool {
	found := slices.Contains(usualLabels, label) || label == "le"
	parser.Inspect(below, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			base, _ := baseMetric(selector.Name, known)
			if _, has := known[base].labels[label]; has {
				found = true
			}
		}
		return nil
	})
	return found
}
