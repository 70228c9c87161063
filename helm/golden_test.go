package helm_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// rewrite is set by UPDATE=1: then what is rendered becomes what is expected.
var rewrite = os.Getenv("UPDATE") == "1"

// What a user gets who says no more than must be said. Read the difference, then: UPDATE=1 go test ./...
func TestDefaultsRenderAsBefore(t *testing.T) {
	t.Parallel()
	golden := filepath.Join("testdata", "default.yaml")
	got := manifest(objects(t, scenarioValues(t, "default")))
	if rewrite {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("it renders otherwise now (- before, + now):\n%s", diff)
	}
}

func manifest(all []object) string {
	var b strings.Builder
	for _, o := range all {
		fmt.Fprintf(&b, "---\n# Source: %s\n%s\n", o.template, o.text)
	}
	return b.String()
}

// released are the scenarios as earlier versions of the chart have rendered them, which were installed and are upgraded: one
// folder a version, one file a scenario. A version that is released gets its folder by RELEASE=1 go test -run Upgrade.
const released = "testdata/released"

// An upgrade must not ask the API server for what it refuses, nor make an object anew that holds state.
func TestAnUpgradeChangesNothingImmutable(t *testing.T) {
	t.Parallel()
	if os.Getenv("RELEASE") == "1" {
		release(t)
	}
	files, err := filepath.Glob(filepath.Join(released, "*", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no earlier version is known: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before, err := decode(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		now := map[string]object{}
		for _, o := range objects(t, scenarioValues(t, name)) {
			now[o.id()] = o
		}
		for _, old := range before {
			if old.hooked() {
				continue
			}
			upgraded, found := now[old.id()]
			switch {
			case !found && keeps(old):
				t.Errorf("%s: %s is gone: an upgrade deletes it", file, old.id())
			case found:
				for _, problem := range immutableChanges(old, upgraded) {
					t.Errorf("%s: %s: %s", file, old.id(), problem)
				}
			}
		}
	}
}

// keeps reports whether an object's name must stay: traffic, state or credentials hang on it.
func keeps(o object) bool {
	switch o.Object.(type) {
	case *apps.Deployment, *apps.StatefulSet, *core.Service, *core.Secret:
		return true
	}
	return false
}

// immutableChanges tells what the API server would refuse.
func immutableChanges(old, upgraded object) (problems []string) {
	changed := func(field string, before, after any) {
		if !equality.Semantic.DeepEqual(before, after) {
			problems = append(problems, fmt.Sprintf("%s cannot be changed (- before, + now):\n%s", field, cmp.Diff(before, after)))
		}
	}
	switch before := old.Object.(type) {
	case *apps.Deployment:
		changed("spec.selector", before.Spec.Selector, as[*apps.Deployment](upgraded).Spec.Selector)
	case *apps.StatefulSet:
		after := as[*apps.StatefulSet](upgraded)
		changed("spec.selector", before.Spec.Selector, after.Spec.Selector)
		changed("spec.serviceName", before.Spec.ServiceName, after.Spec.ServiceName)
		changed("spec.podManagementPolicy", before.Spec.PodManagementPolicy, after.Spec.PodManagementPolicy)
		changed("spec.volumeClaimTemplates", before.Spec.VolumeClaimTemplates, after.Spec.VolumeClaimTemplates)
	case *core.Service:
		changed("spec.clusterIP", before.Spec.ClusterIP, as[*core.Service](upgraded).Spec.ClusterIP)
	case *core.Secret:
		after := as[*core.Secret](upgraded)
		changed("type", before.Type, after.Type)
		if before.Immutable != nil && *before.Immutable {
			changed("data", before.Data, after.Data)
		}
	}
	return problems
}

// release keeps what this version renders.
func release(t *testing.T) {
	t.Helper()
	folder := filepath.Join(released, loadChart(t).Metadata.Version)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range scenarios(t) {
		if err := os.WriteFile(filepath.Join(folder, name+".yaml"), []byte(manifest(objects(t, scenarioValues(t, name)))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
