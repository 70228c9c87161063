package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// The statuses that the runner gives to a check. All others, such as INFO, are its diary: how many there are depends on timing.
const (
	success = "SUCCESS"
	failure = "FAILURE"
	warning = "WARNING"
	skipped = "SKIPPED"
)

// check is one graded check of the runner.
type check struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// results are the graded checks of one run, by scenario. A scenario may hold the same check more than once.
type results map[string][]check

// resultFolder matches the folder of one scenario: "server-<scenario>-<time>".
var resultFolder = regexp.MustCompile(`^server-(.+)-\d{4}-\d{2}-\d{2}T[0-9-]+Z$`)

// read reads the results that the runner has left in dir.
func read(dir string) (results, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "checks.json"))
	if err != nil {
		return nil, err
	}
	found := make(results)
	for _, file := range files {
		folder := filepath.Base(filepath.Dir(file))
		match := resultFolder.FindStringSubmatch(folder)
		if match == nil {
			return nil, fmt.Errorf("read the runner's results: unexpected folder %q", folder)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the runner's results: %w", err)
		}
		var checks []check
		if err := json.Unmarshal(content, &checks); err != nil {
			return nil, fmt.Errorf("read the runner's results: %s: %w", folder, err)
		}
		scenario := match[1]
		found[scenario] = append(found[scenario], slices.DeleteFunc(checks, func(c check) bool { return !c.graded() })...)
	}
	return found, nil
}

func (c check) graded() bool {
	return slices.Contains([]string{success, failure, warning, skipped}, c.Status)
}

// count counts the checks with a status in one scenario.
func (r results) count(scenario, status string) int {
	n := 0
	for _, c := range r[scenario] {
		if c.Status == status {
			n++
		}
	}
	return n
}

func (r results) total(status string) int {
	n := 0
	for scenario := range r {
		n += r.count(scenario, status)
	}
	return n
}

func (r results) passed() int { return r.total(success) }
func (r results) failed() int { return r.total(failure) }

// union returns the keys of both maps, sorted.
func union[V any](a, b map[string]V) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	return slices.Compact(keys)
}

// difference is a check with another outcome directly than through replicas.
type difference struct {
	scenario, id string
	// The statuses of the check in each run, sorted; several when the scenario makes it several times, none when it does not.
	direct, proxied []string
}

// diff compares two runs check by check.
func diff(direct, proxied results) []difference {
	var found []difference
	for _, scenario := range union(direct, proxied) {
		a, b := direct.byID(scenario), proxied.byID(scenario)
		for _, id := range union(a, b) {
			if !slices.Equal(a[id], b[id]) {
				found = append(found, difference{scenario: scenario, id: id, direct: a[id], proxied: b[id]})
			}
		}
	}
	return found
}

// additions are the differences that there should be: what replicas add to a server that does not have it. Every other one is a fault.
var additions = []struct {
	difference
	because string
}{
	{
		difference{"server-sse-polling", "server-sse-priming-event", []string{warning}, []string{success}},
		"replicas prime streams, this server does not",
	},
	{
		difference{"server-sse-polling", "server-sse-disconnect-resume", nil, []string{warning}},
		"with event ids the runner tries to resume, but this server has no tool that breaks off, so there is nothing to resume",
	},
}

// unexpected leaves out of differences those that there should be.
func unexpected(differences []difference) []difference {
	return slices.DeleteFunc(slices.Clone(differences), func(d difference) bool { return addition(d) != "" })
}

// addition says why a difference should be, "" when it should not.
func addition(d difference) string {
	for _, a := range additions {
		if a.scenario == d.scenario && a.id == d.id && slices.Equal(a.direct, d.direct) && slices.Equal(a.proxied, d.proxied) {
			return a.because
		}
	}
	return ""
}

// byID returns the sorted statuses of each check of a scenario.
func (r results) byID(scenario string) map[string][]string {
	statuses := make(map[string][]string)
	for _, c := range slices.SortedFunc(slices.Values(r[scenario]), byStatus) {
		statuses[c.ID] = append(statuses[c.ID], c.Status)
	}
	return statuses
}

func byStatus(a, b check) int { return cmp.Compare(a.Status, b.Status) }
