package helm_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const configPath = "/etc/shadowcat/config/shadowcat.yaml"

// configFile writes what the program finds at SHADOWCAT_CONFIG to a file.
func configFile(t *testing.T, all []object) string {
	t.Helper()
	deployment := find[*apps.Deployment](all)[0]
	c := program(t, all)
	if !slices.Contains(c.Env, core.EnvVar{Name: "SHADOWCAT_CONFIG", Value: configPath}) {
		t.Fatalf("the program is not told of its configuration: %v", c.Env)
	}
	volume := mountedAt(t, deployment.Spec.Template.Spec, c, filepath.Dir(configPath))
	if volume.ConfigMap == nil {
		t.Fatalf("no ConfigMap is mounted at %s", filepath.Dir(configPath))
	}
	text := only[*core.ConfigMap](t, all, volume.ConfigMap.Name).Data[filepath.Base(configPath)]
	path := filepath.Join(t.TempDir(), "shadowcat.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mountedAt returns the volume that a container has at a path.
func mountedAt(t *testing.T, spec core.PodSpec, c core.Container, path string) core.Volume {
	t.Helper()
	for _, mount := range c.VolumeMounts {
		if mount.MountPath != path {
			continue
		}
		for _, volume := range spec.Volumes {
			if volume.Name == mount.Name {
				return volume
			}
		}
	}
	t.Fatalf("container %s has nothing at %s", c.Name, path)
	return core.Volume{}
}

func TestTheProgramAcceptsItsConfiguration(t *testing.T) {
	t.Parallel()
	eachScenario(t, func(t *testing.T, all []object) {
		s := programSettings(t, all)
		c := program(t, all)
		ports := map[string]int32{}
		for _, port := range c.Ports {
			ports[port.Name] = port.ContainerPort
		}
		if s.Listen != fmt.Sprintf(":%d", ports["http"]) || s.AdminListen != fmt.Sprintf(":%d", ports["admin"]) {
			t.Errorf("it listens at %s and %s, and its ports are %v", s.Listen, s.AdminListen, ports)
		}
		for _, file := range []string{
			s.RedisPasswords.User, s.RedisPasswords.Sentinel, s.RedisTLS.CA, s.RedisTLS.Certificate, s.RedisTLS.Key, s.Auth.UpstreamTokenFile,
		} {
			if file != "" && !isProjected(t, all, file) {
				t.Errorf("the program reads %s, which is not there", file)
			}
		}
	})
}

// isProjected reports whether a file comes from a Secret or ConfigMap. One of the release must have the key.
func isProjected(t *testing.T, all []object, file string) bool {
	t.Helper()
	deployment := find[*apps.Deployment](all)[0]
	volume := mountedAt(t, deployment.Spec.Template.Spec, program(t, all), filepath.Dir(file))
	for _, source := range volume.Projected.Sources {
		var items []core.KeyToPath
		name := ""
		if source.Secret != nil {
			items, name = source.Secret.Items, source.Secret.Name
		} else if source.ConfigMap != nil {
			items = source.ConfigMap.Items
		}
		for _, item := range items {
			if item.Path != filepath.Base(file) {
				continue
			}
			for _, secret := range find[*core.Secret](all) {
				_, hasData := secret.Data[item.Key]
				_, hasText := secret.StringData[item.Key]
				if secret.Name == name && !hasData && !hasText {
					t.Errorf("Secret %s has no key %s", name, item.Key)
				}
			}
			return true
		}
	}
	return false
}

func TestTheProgramIsToldWhatTheValuesSay(t *testing.T) {
	t.Parallel()
	sentinel := programSettings(t, objects(t, scenarioValues(t, "sentinel")))
	if want := "redis-sentinel://shadowcat@sentinel-0.redis.svc:26379,sentinel-1.redis.svc:26379,sentinel-2.redis.svc:26379/mymaster?db=2&sentinel_username=watcher"; sentinel.Redis != want {
		t.Errorf("Redis is at %s, want %s", sentinel.Redis, want)
	}
	if len(sentinel.Upstreams) != 2 || sentinel.Upstreams[0].Name != "files" || len(sentinel.Upstreams[1].More) != 1 || sentinel.WaitReplicas != 1 {
		t.Errorf("settings are %+v", sentinel)
	}
	clustered := programSettings(t, objects(t, scenarioValues(t, "cluster-tls")))
	if want := "rediss-cluster://shadowcat%40prod@redis-0.redis.svc:6379,redis-1.redis.svc:6379,redis-2.redis.svc:6379"; clustered.Redis != want {
		t.Errorf("Redis is at %s, want %s", clustered.Redis, want)
	}
	if clustered.Cluster.MaxSessions != 10_000_000 || clustered.Partitions != 32 || clustered.RedisTLS.Certificate == "" {
		t.Errorf("settings are %+v", clustered)
	}
	for name, s := range map[string]settings.Settings{"sentinel": sentinel, "cluster": clustered} {
		if _, err := redisstore.Open(s.Redis, redisstore.Options{Config: s.Cluster, Partitions: s.Partitions}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the chart does not set is as the program has it: the defaults of values.yaml are its own.
func TestDefaultsAreTheProgramsOwn(t *testing.T) {
	t.Parallel()
	got := programSettings(t, objects(t, scenarioValues(t, "default")))
	want, err := settings.Load(settings.Sources{Flags: map[string][]string{
		"listen": {":8081"}, "admin_listen": {":9081"}, "upstream": {"http://my-server.default.svc:8080/mcp"}, "redis": {"redis://redis.default.svc:6379"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A password must be in no place that people look at without thinking: not in the ConfigMap, not in the pod.
func TestCredentialsAreInSecretsOnly(t *testing.T) {
	t.Parallel()
	const secret = "only-for-tests"
	encoded := base64.StdEncoding.EncodeToString([]byte(secret))
	eachScenario(t, func(t *testing.T, all []object) {
		for _, o := range all {
			if _, isSecret := o.Object.(*core.Secret); !isSecret && (strings.Contains(o.text, secret) || strings.Contains(o.text, encoded)) {
				t.Errorf("%s holds a password", o.id())
			}
		}
	})
}

func TestTheBundledRedisKeepsEverythingAndHasTheProgramsUser(t *testing.T) {
	t.Parallel()
	all := objects(t, scenarioValues(t, "bundled"))
	config := only[*core.ConfigMap](t, all, "mcp-shadowcat-cluster-redis").Data["redis.conf"]
	for _, line := range []string{"maxmemory-policy noeviction", "appendonly yes", "aclfile /etc/shadowcat-redis/users/users.acl", "maxmemory 192mb"} {
		if !slices.Contains(strings.Split(config, "\n"), line) {
			t.Errorf("redis.conf lacks %q:\n%s", line, config)
		}
	}
	users := string(only[*core.Secret](t, all, "mcp-shadowcat-cluster-redis").Data["users.acl"])
	rule := regexp.QuoteMeta(redisstore.ACLRule("shadowcat"))
	if !regexp.MustCompile(`^user default off ~\* &\* \+@all\nuser shadowcat on #[0-9a-f]{64} ` + rule + `\n$`).MatchString(users) {
		t.Errorf("its users are\n%s", users)
	}
	values := scenarioValues(t, "bundled")
	values["config"] = map[string]any{"prefix": "other"}
	users = string(only[*core.Secret](t, objects(t, values), "mcp-shadowcat-cluster-redis").Data["users.acl"])
	if !strings.Contains(users, redisstore.ACLRule("other")) {
		t.Errorf("with another prefix its users are\n%s", users)
	}
}

func TestGoKnowsTheMemoryLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"512Mi", "1Gi", "1.5Gi", "700M", "300000k", "536870912"} {
		values := scenarioValues(t, "default")
		values["resources"] = map[string]any{"limits": map[string]any{"memory": limit}}
		want := resource.MustParse(limit)
		got := ""
		for _, env := range program(t, objects(t, values)).Env {
			if env.Name == "GOMEMLIMIT" {
				got = env.Value
			}
		}
		if want := strconv.FormatInt(want.Value()*90/100, 10); got != want {
			t.Errorf("with %s GOMEMLIMIT is %s, want %s", limit, got, want)
		}
	}
	values := scenarioValues(t, "default")
	values["resources"] = map[string]any{"limits": nil}
	for _, env := range program(t, objects(t, values)).Env {
		if env.Name == "GOMEMLIMIT" {
			t.Errorf("without a limit GOMEMLIMIT is %s", env.Value)
		}
	}
}

// The API server merges variables by their names, and refuses two of the same.
func TestAVariableOfTheUsersWinsOverTheCharts(t *testing.T) {
	t.Parallel()
	values := scenarioValues(t, "default")
	values["extraEnv"] = parseValues(t, "env: [{name: GOMEMLIMIT, value: 1GiB}, {name: SHADOWCAT_CONFIG, value: /mine.yaml}]")["env"]
	got := map[string][]string{}
	for _, env := range program(t, objects(t, values)).Env {
		got[env.Name] = append(got[env.Name], env.Value)
	}
	if want := map[string][]string{"GOMEMLIMIT": {"1GiB"}, "SHADOWCAT_CONFIG": {"/mine.yaml"}}; !cmp.Equal(got, want) {
		t.Errorf("the program's variables are %v, want %v", got, want)
	}
}

// helm test, the notes and other pods use the Service by its name, whatever names there are outside.
func TestTheServiceIsAmongTheAllowedHosts(t *testing.T) {
	t.Parallel()
	hosts := func(config map[string]any) []string {
		values := scenarioValues(t, "default")
		values["config"] = config
		return programSettings(t, objects(t, values)).AllowedHosts
	}
	if got := hosts(map[string]any{"allowed_hosts": []any{"mcp.example.com"}}); !slices.Equal(got, []string{"mcp.example.com", "mcp-shadowcat-cluster.agents.svc"}) {
		t.Errorf("with a host of the user's these are allowed: %v", got)
	}
	if got := hosts(map[string]any{}); len(got) > 0 {
		t.Errorf("without any these are allowed: %v", got)
	}
}

func TestThePodIsGivenTheTimeThatItsDrainTakes(t *testing.T) {
	t.Parallel()
	for timeout, want := range map[string]int64{"25s": 30, "1m30s": 95, "1h": 3605, "4500ms": 10} {
		values := scenarioValues(t, "default")
		values["config"] = map[string]any{"drain_timeout": timeout}
		if got := find[*apps.Deployment](objects(t, values))[0].Spec.Template.Spec.TerminationGracePeriodSeconds; *got != want {
			t.Errorf("with %s it has %d seconds, want %d", timeout, *got, want)
		}
	}
}

func TestAChangedConfigurationRollsThePods(t *testing.T) {
	t.Parallel()
	template := func(values map[string]any) core.PodTemplateSpec {
		return find[*apps.Deployment](objects(t, values))[0].Spec.Template
	}
	before := template(scenarioValues(t, "cluster-tls"))
	for what, change := range map[string]func(values map[string]any){
		"a setting":  func(values map[string]any) { values["config"] = map[string]any{"max_age": "1h"} },
		"a password": func(values map[string]any) { externalRedis(values)["password"] = "another" },
	} {
		values := scenarioValues(t, "cluster-tls")
		change(values)
		if cmp.Equal(before.Annotations, template(values).Annotations) {
			t.Errorf("%s changes, and the pods do not", what)
		}
	}
}

func externalRedis(values map[string]any) map[string]any {
	return values["redis"].(map[string]any)["external"].(map[string]any) //nolint:errcheck // a scenario of ours
}

// What pods mount and read is of the release, or is named by the values.
func TestWhatPodsReferToIsThere(t *testing.T) {
	t.Parallel()
	for _, name := range scenarios(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			values, err := os.ReadFile(filepath.Join(chartFolder, "ci", name+"-values.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			all := objects(t, scenarioValues(t, name))
			here := map[string]bool{}
			for _, o := range all {
				here[o.id()] = true
			}
			check := func(owner, kind, reference string) {
				if reference != "" && !here[kind+"/"+reference] && !strings.Contains(string(values), reference) {
					t.Errorf("%s refers to the %s %s, which nobody makes", owner, kind, reference)
				}
			}
			for _, p := range pods(all) {
				if p.spec.ServiceAccountName != "default" { // every namespace has that one
					check(p.owner, "ServiceAccount", p.spec.ServiceAccountName)
				}
				for _, volume := range p.spec.Volumes {
					if volume.Secret != nil {
						check(p.owner, "Secret", volume.Secret.SecretName)
					}
					if volume.ConfigMap != nil {
						check(p.owner, "ConfigMap", volume.ConfigMap.Name)
					}
					if volume.Projected == nil {
						continue
					}
					for _, source := range volume.Projected.Sources {
						if source.Secret != nil {
							check(p.owner, "Secret", source.Secret.Name)
						}
						if source.ConfigMap != nil {
							check(p.owner, "ConfigMap", source.ConfigMap.Name)
						}
					}
				}
			}
		})
	}
}
