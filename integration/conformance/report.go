package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// report prints the two runs side by side, scenario by scenario, and below them each check that differs.
func report(out io.Writer, r revision, direct, proxied results, differences []difference) {
	different := make(map[string]bool)
	for _, d := range unexpected(differences) {
		different[d.scenario] = true
	}
	// Errors of writing to the terminal have nowhere to go.
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(table, "\n%s\tdirect\tthree replicas\t\n", r.name)
	for _, scenario := range union(direct, proxied) {
		mark := ""
		if different[scenario] {
			mark = "DIFFERENT"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", scenario, column(direct, scenario), column(proxied, scenario), mark)
	}
	verdict := "equal"
	if len(different) > 0 {
		verdict = "DIFFERENT"
	}
	fmt.Fprintf(table, "total\t%s\t%s\t%s\n",
		counts(direct.passed(), direct.failed()), counts(proxied.passed(), proxied.failed()), verdict)
	_ = table.Flush()
	for _, d := range differences {
		because := addition(d)
		if because != "" {
			because = ", as it should be: " + because
		}
		fmt.Fprintf(out, "%s: %s: %s directly, %s through replicas%s\n", d.scenario, d.id, statuses(d.direct), statuses(d.proxied), because)
	}
}

// column is one scenario's cell.
func column(r results, scenario string) string {
	if _, ran := r[scenario]; !ran {
		return "did not run"
	}
	return counts(r.count(scenario, success), r.count(scenario, failure))
}

func counts(passed, failed int) string { return fmt.Sprintf("%d passed, %d failed", passed, failed) }

func statuses(s []string) string {
	if len(s) == 0 {
		return "not checked"
	}
	return strings.Join(s, "+")
}
