package lua_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/lua"
)

// scripts returns the text of every script and include by file name.
func scripts(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.lua")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	texts := make(map[string]string, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(text)
	}
	return texts
}

// split separates the header comment from the body.
func split(text string) (header, body string) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "--") {
			return strings.Join(lines[:i], "\n"), strings.Join(lines[i:], "\n")
		}
	}
	return text, ""
}

func TestScriptsAvoidWhatDiffersBetweenServers(t *testing.T) {
	t.Parallel()
	forbidden := regexp.MustCompile(`\b(cjson|cmsgpack|struct|bit|os|io|require|print|goto|loadstring|dofile)\b[.( ]|#!lua|\berror\(|redis\.pcall|tostring\(`)
	for file, text := range scripts(t) {
		for i, line := range strings.Split(text, "\n") {
			code, _, _ := strings.Cut(line, "--")
			if found := forbidden.FindString(code); found != "" {
				t.Errorf("%s:%d: %q does not work the same everywhere", file, i+1, found)
			}
		}
	}
}

func TestScriptsAreOneTransitionEach(t *testing.T) {
	t.Parallel()
	for file, text := range scripts(t) {
		if n := strings.Count(text, "\n"); n > 75 {
			t.Errorf("%s has %d lines: is it one transition?", file, n)
		}
	}
}

func TestNoKeyIsSpelledInAScript(t *testing.T) {
	t.Parallel()
	spelled := regexp.MustCompile(`'[^']*(session|more|pending|lru|deadlines|counts|shadowcat):[^']*'`)
	for file, text := range scripts(t) {
		_, body := split(text)
		if found := spelled.FindString(body); found != "" {
			t.Errorf("%s spells the key %s: keys are made in redisstore/keys.go", file, found)
		}
	}
}

func TestEachScriptHasItsFilesName(t *testing.T) {
	t.Parallel()
	var want []string
	for file := range scripts(t) {
		if name := strings.TrimSuffix(file, ".lua"); !strings.HasSuffix(name, ".inc") {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if got := lua.Names(); !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if got := lua.Name(lua.SessionLease); got != "session_lease" {
		t.Errorf("the name is %q", got)
	}
}
