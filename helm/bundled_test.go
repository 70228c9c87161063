package helm_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/engine"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	kubernetes "k8s.io/client-go/kubernetes/scheme"
)

const bundledName = "mcp-shadowcat-cluster-redis"

// A real Redis takes the configuration and the users, lets the program's user in, and nobody else.
func TestARealRedisTakesTheBundledConfiguration(t *testing.T) {
	t.Parallel()
	server, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("redis-server is not there; make helm installs it on Debian")
	}
	all := objects(t, scenarioValues(t, "bundled"))
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	users := write("users.acl", string(only[*core.Secret](t, all, bundledName).Data["users.acl"]))
	config := only[*core.ConfigMap](t, all, bundledName).Data["redis.conf"]
	config = strings.NewReplacer("/etc/shadowcat-redis/users/users.acl", users, "dir /data", "dir "+dir, "port 6379", "port 0").Replace(config)
	socket := filepath.Join(dir, "socket")
	process := exec.CommandContext(t.Context(), server, write("redis.conf", config), "--unixsocket", socket)
	var output strings.Builder
	process.Stdout, process.Stderr = &output, &output
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill() // fails when it has ended, as it should not have
		_ = process.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	client := func(user, password string) *redis.Client {
		c := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Username: user, Password: password, DialerRetries: 1})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	known := client("shadowcat", "only-for-tests")
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for err = known.Ping(t.Context()).Err(); err != nil; err = known.Ping(t.Context()).Err() {
		select {
		case <-deadline.C:
			t.Fatalf("Redis does not let the program's user in: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	info, err := known.Info(t.Context()).Result()
	for _, want := range []string{"maxmemory_policy:noeviction", "maxmemory:201326592", "aof_enabled:1"} {
		if err != nil || !strings.Contains(info, want) {
			t.Errorf("Redis does not say %s: %v", want, err)
		}
	}
	for _, nobody := range []*redis.Client{client("", ""), client("default", "only-for-tests"), client("shadowcat", "wrong")} {
		if nobody.Ping(t.Context()).Err() == nil {
			t.Error("Redis lets somebody else in")
		}
	}
	if err := known.ConfigGet(t.Context(), "*").Err(); err == nil {
		t.Error("the program's user may do more than it needs")
	}
}

// cluster is one for Helm's lookup.
type cluster struct{ client dynamic.Interface }

func (c cluster) GetClientFor(apiVersion, kind string) (dynamic.NamespaceableResourceInterface, bool, error) {
	resource, _ := meta.UnsafeGuessKindToResource(schema.FromAPIVersionAndKind(apiVersion, kind))
	return c.client.Resource(resource), true, nil
}

// installed is what a template renders in a cluster where there are objects.
func installed(t *testing.T, values map[string]any, template string, existing ...runtime.Object) []object {
	t.Helper()
	c := loadChart(t)
	merged, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: releaseName, Namespace: namespace}, common.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := engine.RenderWithClientProvider(c, merged, cluster{fake.NewSimpleDynamicClient(kubernetes.Scheme, existing...)})
	if err != nil {
		t.Fatal(err)
	}
	all, err := decode(rendered[chartFolder+"/templates/"+template])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A Deployment that no longer says how many replicas it has is given one, until the autoscaler has looked.
func TestTurningTheAutoscalerOnTakesNoReplicaAway(t *testing.T) {
	t.Parallel()
	values := parseValues(t, "upstreams: [{url: http://u/mcp}]\nredis: {external: {addresses: [r:6379]}}\nautoscaling: {enabled: true}")
	replicas := func(existing ...runtime.Object) *int32 {
		return only[*apps.Deployment](t, installed(t, values, "deployment.yaml", existing...), "mcp-shadowcat-cluster").Spec.Replicas
	}
	if got := replicas(); got != nil {
		t.Errorf("a new Deployment has %d replicas, which the autoscaler should say", *got)
	}
	there := &apps.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "mcp-shadowcat-cluster", Namespace: namespace}}
	now := int32(7)
	there.Spec.Replicas = &now
	if got := replicas(there); got == nil || *got != now {
		t.Errorf("a Deployment of 7 replicas gets %v", got)
	}
}

// A password that nobody has chosen is made once, and kept by upgrades.
func TestAnUpgradeKeepsTheBundledPassword(t *testing.T) {
	t.Parallel()
	values := parseValues(t, "upstreams: [{url: http://u/mcp}]\nredis: {bundled: {enabled: true}}")
	install := func(existing ...runtime.Object) *core.Secret {
		return only[*core.Secret](t, installed(t, values, "redis.yaml", existing...), bundledName)
	}
	first := install()
	if password := first.Data["redis-password"]; len(password) != 32 {
		t.Fatalf("the password is %q", password)
	}
	if other := install(); bytes.Equal(other.Data["redis-password"], first.Data["redis-password"]) {
		t.Error("two installations have the same password")
	}
	upgraded := install(first)
	if diff := cmp.Diff(first.Data, upgraded.Data); diff != "" {
		t.Error("an upgrade makes a new password")
	}
}
