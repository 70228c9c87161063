package helm_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	core "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

var rulesFile = filepath.Join(chartFolder, "files", "rules.yaml")

func TestAlertsPassTheirUnitTests(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not there; make helm installs it on Debian, else: https://prometheus.io/download")
	}
	for _, arguments := range [][]string{{"check", "rules", "--lint-fatal", rulesFile}, {"test", "rules", "testdata/rules_test.yaml"}} {
		if out, err := exec.CommandContext(t.Context(), promtool, arguments...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", arguments, err, out)
		}
	}
}

func readRules(t *testing.T) monitoring.PrometheusRuleSpec {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var rules monitoring.PrometheusRuleSpec
	if err := sigsyaml.UnmarshalStrict(text, &rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestAlertsAskForWhatThereIsAndAreTested(t *testing.T) {
	t.Parallel()
	known := documented(t)
	tests, err := os.ReadFile("testdata/rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range readRules(t).Groups {
		for _, rule := range group.Rules {
			checkExpression(t, rule.Alert, rule.Expr.String(), known)
			if !slices.Contains([]string{"critical", "warning"}, rule.Labels["severity"]) || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s lacks a severity, a summary or a description", rule.Alert)
			}
			// The documentation has descriptions as they are, in a table.
			if strings.ContainsAny(rule.Annotations["description"], "{|}") {
				t.Errorf("the description of %s is a template: %s", rule.Alert, rule.Annotations["description"])
			}
			// Once where nothing is wrong, and once where it fires.
			if strings.Count(string(tests), rule.Alert) < 2 {
				t.Errorf("%s has no unit test", rule.Alert)
			}
		}
	}
}

// What is installed is what promtool has seen, but for alerts that are turned off.
func TestAlertsAreInstalledAsTheyAreTested(t *testing.T) {
	t.Parallel()
	values := scenarioValues(t, "everything")
	installed := only[*monitoring.PrometheusRule](t, objects(t, values), "mcp-proxy").Spec
	want := readRules(t)
	want.Groups[0].Rules = slices.DeleteFunc(want.Groups[0].Rules, func(r monitoring.Rule) bool { return r.Alert == "ShadowcatNearTheCap" })
	if diff := cmp.Diff(want, installed); diff != "" {
		t.Errorf("installed is something else than what is tested (- tested, + installed):\n%s", diff)
	}
}

// dashboard is what a test must know of Grafana's model.
type dashboard struct {
	Title      string `json:"title"`
	UID        string `json:"uid"`
	Templating struct {
		List []struct {
			Name  string `json:"name"`
			Query any    `json:"query"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	GridPos     struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	} `json:"gridPos"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []struct {
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

// grafanaValues stand for Grafana's variables.
var grafanaValues = strings.NewReplacer("$__rate_interval", "5m", "$namespace", "mcp", "$job", "a", "$instance", ".*")

func TestTheDashboardShowsWhatThereIs(t *testing.T) {
	t.Parallel()
	known := documented(t)
	installed := only[*core.ConfigMap](t, objects(t, scenarioValues(t, "everything")), "mcp-proxy-dashboard").Data["shadowcat-cluster.json"]
	var board dashboard
	if err := json.Unmarshal([]byte(installed), &board); err != nil {
		t.Fatal(err)
	}
	if board.Title == "" || board.UID == "" || board.Panels[0].Type != "row" {
		t.Errorf("the dashboard has no title, no UID, or does not begin with a section: %+v", board)
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("%s: the id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %q, or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("%s has no description, no unit, or shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			where := fmt.Sprintf("the panel %q", p.Title)
			if p.Type == "timeseries" && target.LegendFormat == "" {
				t.Errorf("%s: a series has no name", where)
			}
			if !strings.Contains(target.Expr, `namespace="$namespace",job="$job"`) {
				t.Errorf("%s shows every release: %s", where, target.Expr)
			}
			checkExpression(t, where, grafanaValues.Replace(target.Expr), known)
		}
	}
}

// Every metric is on the dashboard, so that what is new is not forgotten; but those that say the same in another way.
func TestTheDashboardShowsAllThatMatters(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join(chartFolder, "files", "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := []string{
		"shadowcat_auth_keys_age_seconds", "shadowcat_auth_keys_up", // alerts
		"shadowcat_store_up", "shadowcat_store_outages_total", "shadowcat_store_outage_seconds_total", // shadowcat_store_outage
		"shadowcat_store_breakers", "shadowcat_store_breaker_trips_total", // shadowcat_store_breakers_open
		"shadowcat_report_duration_seconds", "shadowcat_leader_renew_duration_seconds", "shadowcat_sweep_duration_seconds", // shadowcat_store_call_duration_seconds
		"shadowcat_sessions_due", "shadowcat_sweep_behind", // shadowcat_sweep_lag_seconds
		"shadowcat_leader_renew_failures_total", // shadowcat_leader_transitions_total
	}
	for name := range documented(t) {
		shown := regexp.MustCompile(`\b` + name + `(_bucket|_sum|_count)?\b`).Match(content)
		if shown == slices.Contains(elsewhere, name) {
			t.Errorf("%s is shown: %v; add it to the dashboard, or to what is shown otherwise", name, shown)
		}
	}
}

func TestTheDocumentationNamesEveryAlert(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range readRules(t).Groups {
		for _, rule := range group.Rules {
			if row := fmt.Sprintf("| %#q | %s | %s |", rule.Alert, rule.Labels["severity"], rule.Annotations["description"]); !strings.Contains(string(content), row) {
				t.Errorf("docs/kubernetes.md lacks the line\n%s", row)
			}
			if !strings.Contains(string(runbook), "\n### "+rule.Alert+"\n\n**It means**") {
				t.Errorf("the runbook in docs/operations.md says nothing about %s", rule.Alert)
			}
			if url := "https://github.com/tapwire/shadowcat-cluster/blob/main/docs/operations.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != url {
				t.Errorf("%s leads to %q, want %s", rule.Alert, rule.Annotations["runbook_url"], url)
			}
		}
	}
}
