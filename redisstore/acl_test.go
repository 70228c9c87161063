package redisstore_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// sentByTheClient are the rule's commands that no script calls; what happens without each is tested on real servers.
var sentByTheClient = []string{
	"asking", "cluster|slots", "command", "del", "eval", "evalsha", "info", "pexpire", "ping", "pttl",
	"publish", "scan", "select", "subscribe", "unsubscribe", "wait",
}

func TestACLRuleAllowsWhatScriptsCallAndNoMore(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../lua/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	called := slices.Clone(sentByTheClient)
	call := regexp.MustCompile(`redis\.p?call\(\s*'([A-Za-z]+)'`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range call.FindAllStringSubmatch(string(text), -1) {
			called = append(called, strings.ToLower(match[1]))
		}
	}
	slices.Sort(called)
	var allowed []string
	for word := range strings.FieldsSeq(redisstore.ACLRule("p")) {
		if command, ok := strings.CutPrefix(word, "+"); ok {
			allowed = append(allowed, command)
		}
	}
	slices.Sort(allowed)
	if diff := cmp.Diff(slices.Compact(called), allowed); diff != "" {
		t.Errorf("the commands of the rule (-called +allowed):\n%s", diff)
	}
}

func TestACLRuleKeepsToThePrefix(t *testing.T) {
	t.Parallel()
	words := strings.Fields(redisstore.ACLRule("team-a"))
	if want := []string{"resetkeys", "~team-a:*", "resetchannels", "&team-a:*", "-@all"}; !slices.Equal(words[:5], want) {
		t.Errorf("the rule begins with %v, want %v", words[:5], want)
	}
	for _, word := range words[5:] {
		if !strings.HasPrefix(word, "+") || strings.Contains(word, "@") {
			t.Errorf("%q allows more than one command", word)
		}
	}
}

func TestDocumentationNamesTheRules(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []string{redisstore.ACLRule("shadowcat"), redisstore.SentinelACLRule()} {
		if !strings.Contains(string(text), "ACL SETUSER shadowcat on >PASSWORD "+rule+"\n") {
			t.Errorf("docs/redis.md does not hold this rule:\n%s", rule)
		}
	}
}
