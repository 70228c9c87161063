package helm_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	kubernetes "k8s.io/client-go/kubernetes/scheme"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

const chartFolder = "shadowcat-cluster"

// The release that scenarios are rendered as.
const (
	releaseName = "mcp"
	namespace   = "agents"
)

// scenarios are the names of the files in ci/, without their ending.
func scenarios(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartFolder, "ci", "*-values.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios in ci/: %v", err)
	}
	names := make([]string, len(files))
	for i, file := range files {
		names[i] = strings.TrimSuffix(filepath.Base(file), "-values.yaml")
	}
	return names
}

func scenarioValues(t *testing.T, name string) map[string]any {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(chartFolder, "ci", name+"-values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return parseValues(t, string(content))
}

func parseValues(t *testing.T, text string) map[string]any {
	t.Helper()
	values := map[string]any{}
	if err := sigsyaml.UnmarshalStrict([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartFolder)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render renders the chart as helm install does, and checks the values against the schema before that. The keys are the
// templates' paths.
func render(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	c := loadChart(t)
	release := common.ReleaseOptions{Name: releaseName, Namespace: namespace, Revision: 1, IsInstall: true}
	merged, err := util.ToRenderValues(c, values, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.RenderWithContext(t.Context(), c, merged)
}

// object is one rendered object, decoded into its API type.
type object struct {
	runtime.Object
	template string // its file
	text     string // as it was rendered
}

func (o object) meta() metav1.Object {
	accessor, err := meta.Accessor(o.Object)
	if err != nil {
		panic(err) // all kinds that the decoder knows have metadata
	}
	return accessor
}

// id names an object among all of a release.
func (o object) id() string {
	return o.GetObjectKind().GroupVersionKind().Kind + "/" + o.meta().GetName()
}

// hooked reports whether Helm makes the object only for a moment, as a test.
func (o object) hooked() bool { return o.meta().GetAnnotations()["helm.sh/hook"] != "" }

// objects renders values, and decodes all objects strictly: a field that its type does not have is an error, and so is one
// that is there twice.
func objects(t *testing.T, values map[string]any) []object {
	t.Helper()
	rendered, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	var all []object
	seen := map[string]bool{}
	for _, template := range slices.Sorted(maps.Keys(rendered)) {
		if !strings.HasSuffix(template, ".yaml") {
			continue
		}
		documents, err := decode(rendered[template])
		if err != nil {
			t.Errorf("%s: %v\n%s", template, err, rendered[template])
		}
		for _, o := range documents {
			o.template = template
			if seen[o.id()] {
				t.Errorf("%s: %s is there twice", template, o.id())
			}
			seen[o.id()] = true
			all = append(all, o)
		}
	}
	return all
}

var strict = func() runtime.Decoder {
	known := runtime.NewScheme()
	utilruntime.Must(kubernetes.AddToScheme(known))
	utilruntime.Must(monitoring.AddToScheme(known))
	utilruntime.Must(gateway.Install(known))
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, known, known, json.SerializerOptions{Yaml: true, Strict: true})
}()

func decode(text string) ([]object, error) {
	var all []object
	reader := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		var content any
		if err := sigsyaml.Unmarshal(document, &content); err != nil {
			return all, err
		}
		if content == nil {
			continue // a template that is off leaves nothing, or a comment
		}
		decoded, _, err := strict.Decode(document, nil, nil)
		if err != nil {
			return all, fmt.Errorf("%w in\n%s", err, document)
		}
		all = append(all, object{Object: decoded, text: string(bytes.TrimSpace(document))})
	}
}

// as is an object of a known type.
func as[T runtime.Object](o object) T {
	typed, ok := o.Object.(T)
	if !ok {
		panic(o.id() + " is of another type")
	}
	return typed
}

// find returns the objects of a type.
func find[T runtime.Object](all []object) []T {
	var found []T
	for _, o := range all {
		if typed, ok := o.Object.(T); ok {
			found = append(found, typed)
		}
	}
	return found
}

// only returns the one object of a type that has a name.
func only[T runtime.Object](t *testing.T, all []object, name string) T {
	t.Helper()
	for _, o := range all {
		if typed, ok := o.Object.(T); ok && o.meta().GetName() == name {
			return typed
		}
	}
	var zero T
	t.Fatalf("there is no %T called %s", zero, name)
	return zero
}

// eachScenario runs a test for every scenario.
func eachScenario(t *testing.T, test func(t *testing.T, all []object)) {
	t.Helper()
	for _, name := range scenarios(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, objects(t, scenarioValues(t, name)))
		})
	}
}
