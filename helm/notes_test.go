package helm_test

import (
	"strings"
	"testing"
)

func notes(t *testing.T, values map[string]any) string {
	t.Helper()
	rendered, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	return rendered[chartFolder+"/templates/NOTES.txt"]
}

func TestNotesSayWhatToDoNextAndWhatToBewareOf(t *testing.T) {
	t.Parallel()
	const warning = "WARNING"
	plain := notes(t, scenarioValues(t, "default"))
	for _, want := range []string{
		"helm -n agents test mcp --logs", "http://mcp-shadowcat-cluster.agents.svc:80/mcp",
		"kubectl -n agents exec deployment/mcp-shadowcat-cluster -- shadowcat-cluster session list", "Nobody watches it yet",
	} {
		if !strings.Contains(plain, want) {
			t.Errorf("the notes lack %q:\n%s", want, plain)
		}
	}
	if strings.Contains(plain, warning) {
		t.Errorf("the notes warn of the defaults:\n%s", plain)
	}
	for scenario, want := range map[string]string{
		"bundled":  "NOT HIGHLY AVAILABLE",
		"minimal":  "fewer than 2 replicas",
		"sentinel": "/files/mcp",
		"jwt":      "https://mcp.example.com/mcp",
	} {
		if text := notes(t, scenarioValues(t, scenario)); !strings.Contains(text, want) {
			t.Errorf("%s: the notes lack %q:\n%s", scenario, want, text)
		}
	}
	open := scenarioValues(t, "default")
	open["service"] = map[string]any{"type": "LoadBalancer"}
	if text := notes(t, open); !strings.Contains(text, "auth.mode is none") {
		t.Errorf("the notes do not warn of a service that is open to everybody:\n%s", text)
	}
}
