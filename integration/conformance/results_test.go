package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadKeepsGradedChecksByScenario(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for folder, content := range map[string]string{
		"server-ping-2026-11-22T23-59-26-036Z":               `[{"id":"ping","status":"SUCCESS"},{"id":"request","status":"INFO"}]`,
		"server-server-sse-polling-2026-11-22T23-59-26-855Z": `[{"id":"prime","status":"WARNING"},{"id":"prime","status":"FAILURE"}]`,
	} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, folder, "checks.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := results{
		"ping":               {{ID: "ping", Status: success}},
		"server-sse-polling": {{ID: "prime", Status: warning}, {ID: "prime", Status: failure}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got.passed() != 1 || got.failed() != 1 {
		t.Errorf("got %d passed and %d failed, want one each", got.passed(), got.failed())
	}
}

func TestReadRefusesAFolderItDoesNotKnow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "ping"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ping", "checks.json"), []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(dir); err == nil {
		t.Error("got no error: a runner with other folders would look as if it ran nothing")
	}
}

func TestDiffFindsWhatCountsHide(t *testing.T) {
	t.Parallel()
	direct := results{
		"a": {{"one", success}, {"two", failure}},
		"b": {{"same", success}, {"same", success}},
		"c": {{"gone", success}},
	}
	proxied := results{
		"a": {{"one", failure}, {"two", success}}, // as many of each
		"b": {{"same", success}, {"same", failure}},
		"d": {{"new", success}},
	}
	got := diff(direct, proxied)
	want := []difference{
		{"a", "one", []string{success}, []string{failure}},
		{"a", "two", []string{failure}, []string{success}},
		{"b", "same", []string{success, success}, []string{failure, success}},
		{"c", "gone", []string{success}, nil},
		{"d", "new", nil, []string{success}},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(difference{})); d != "" {
		t.Error(d)
	}
	if got := diff(direct, direct); len(got) != 0 {
		t.Errorf("a run differs from itself: %v", got)
	}
}

func TestDiffIgnoresTheOrderOfChecks(t *testing.T) {
	t.Parallel()
	a := results{"a": {{"x", success}, {"x", failure}, {"y", skipped}}}
	b := results{"a": {{"y", skipped}, {"x", failure}, {"x", success}}}
	if got := diff(a, b); len(got) != 0 {
		t.Errorf("got %v, want no difference", got)
	}
}

func TestReportNamesTheScenarioThatDiffers(t *testing.T) {
	t.Parallel()
	direct := results{"ping": {{"answered", success}}, "tools": {{"list", success}}}
	proxied := results{"ping": {{"answered", failure}}, "tools": {{"list", success}}}
	var out bytes.Buffer
	report(&out, revisions[0], direct, proxied, diff(direct, proxied))
	for _, want := range []string{"DIFFERENT", "ping: answered: SUCCESS directly, FAILURE through replicas", "2 passed, 0 failed", "1 passed, 1 failed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &out)
		}
	}
	if strings.Count(out.String(), "DIFFERENT") != 2 {
		t.Errorf("want one scenario and the total marked:\n%s", &out)
	}
}

func TestOnlyTheOutcomesThatReplicasAddAreExpected(t *testing.T) {
	t.Parallel()
	for _, a := range additions {
		if got := unexpected([]difference{a.difference}); len(got) != 0 {
			t.Errorf("not expected: %+v", got)
		}
		worse := a.difference
		worse.proxied = []string{failure}
		if got := unexpected([]difference{worse}); len(got) != 1 {
			t.Errorf("expected: %+v", worse)
		}
	}
}

func TestManifestNamesNoRegistry(t *testing.T) {
	t.Parallel()
	lock, err := manifest.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(lock, []byte(`"resolved"`)) {
		t.Error(`package-lock.json has "resolved" addresses: write it again with the .npmrc beside it`)
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--revision", "2024-11-05"}, {"--no-such-flag"}, {"extra"}} {
		if err := run(t.Context(), &bytes.Buffer{}, args); err == nil {
			t.Errorf("%v: got no error", args)
		}
	}
}
