package demo

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWelcomeSaysHowToConnectAndFitsTheScreen(t *testing.T) {
	t.Parallel()
	w := welcome{
		endpoint: "http://127.0.0.1:65535/mcp",
		replicas: []replicaPlace{
			{mcp: "http://127.0.0.1:65001/mcp", metrics: "http://127.0.0.1:65002/metrics"},
			{mcp: "http://127.0.0.1:65003/mcp", metrics: "http://127.0.0.1:65004/metrics"},
		},
		redis: "redis://127.0.0.1:65000", embedded: true, program: "./bin/shadowcat-cluster",
	}
	var b strings.Builder
	if err := w.write(&b, style{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2 replicas behind one address",
		"claude mcp add --transport http shadowcat http://127.0.0.1:65535/mcp\n",
		"--server-url http://127.0.0.1:65535/mcp\n",
		"curl -s http://127.0.0.1:65535/mcp ",
		"replica-2   http://127.0.0.1:65003/mcp    http://127.0.0.1:65004/metrics\n",
		"./bin/shadowcat-cluster session list --redis redis://127.0.0.1:65000\n",
		"embedded: gone when the demo stops",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the welcome lacks %q:\n%s", want, b.String())
		}
	}
	for line := range strings.Lines(b.String()) {
		if got := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); got > 80 {
			t.Errorf("a line takes %d columns: %s", got, line)
		}
	}
}

func TestWelcomeQuotesForTheShellAndNamesThePrefix(t *testing.T) {
	t.Parallel()
	w := welcome{
		endpoint: "http://127.0.0.1:1/mcp", replicas: []replicaPlace{{}},
		public: true, redis: "redis://h:1/0?a=it's&b", prefix: "shadowcat-demo", program: "a b",
	}
	var b strings.Builder
	if err := w.write(&b, style{}); err != nil {
		t.Fatal(err)
	}
	if want := `'a b' stats --redis 'redis://h:1/0?a=it'\''s&b' --prefix shadowcat-demo`; !strings.Contains(b.String(), want) {
		t.Errorf("the welcome lacks %s:\n%s", want, b.String())
	}
	if !strings.Contains(b.String(), "Other machines may reach it") {
		t.Errorf("the welcome does not warn:\n%s", b.String())
	}
	if strings.Contains(b.String(), "embedded") {
		t.Errorf("the welcome calls a Redis of the user's own embedded:\n%s", b.String())
	}
}
