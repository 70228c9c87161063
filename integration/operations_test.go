package integration_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// A client's author finds every word of a refusal in the manual: the reasons, and the limits that docs/metrics.md lists from the code.
func TestOperationsNamesEveryReasonAndLimit(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, answers, _ := strings.Cut(read("operations.md"), "## How answers are to be read")
	answers, _, _ = strings.Cut(answers, "\n## ")
	words := []string{}
	for _, reason := range mcp.Reasons() {
		words = append(words, string(reason))
	}
	_, refusals, _ := strings.Cut(read("metrics.md"), "### shadowcat_refusals_total")
	_, limits, found := strings.Cut(refusals, "- Label `limit`: ")
	limits, _, _ = strings.Cut(limits, ".")
	for limit := range strings.SplitSeq(limits, ", ") {
		if limit = strings.Trim(limit, "`"); limit != "none" && limit != "other" {
			words = append(words, limit)
		}
	}
	if !found || len(words) < 20 {
		t.Fatalf("docs/metrics.md is not understood: %q", words)
	}
	for _, word := range words {
		if !strings.Contains(answers, "`"+word+"`") {
			t.Errorf("docs/operations.md does not explain %s", word)
		}
	}
}

// What the operator's manual says that clients see in a failure is shown by tests, which it names.
func TestOperationsNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	exist := testsOfTheModule(t)
	named := regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")
	rows := 0
	_, table, _ := strings.Cut(string(manual), "| failure |")
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			if rows > 0 {
				break
			}
			continue
		}
		if strings.HasPrefix(line, "|---") {
			continue
		}
		rows++
		names := named.FindAllStringSubmatch(line, -1)
		if len(names) == 0 {
			t.Errorf("no test shows this: %s", line)
		}
		for _, name := range names {
			if !exist[name[1]] {
				t.Errorf("there is no test %s, which is to show this: %s", name[1], line)
			}
		}
	}
	if rows < 12 {
		t.Errorf("the table has %d failures, want at least 12", rows)
	}
}

// testsOfTheModule are the names of all tests.
func testsOfTheModule(t *testing.T) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	tests := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != ".." && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, name := range declared.FindAllSubmatch(text, -1) {
			tests[string(name[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}
