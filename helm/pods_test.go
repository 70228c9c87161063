package helm_test

import (
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/engine"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
)

// pod is a pod that the release makes, by whatever object.
type pod struct {
	owner  string
	labels map[string]string
	spec   core.PodSpec
}

func pods(all []object) []pod {
	var found []pod
	for _, o := range all {
		switch typed := o.Object.(type) {
		case *apps.Deployment:
			found = append(found, pod{o.id(), typed.Spec.Template.Labels, typed.Spec.Template.Spec})
		case *apps.StatefulSet:
			found = append(found, pod{o.id(), typed.Spec.Template.Labels, typed.Spec.Template.Spec})
		case *core.Pod:
			found = append(found, pod{o.id(), typed.Labels, typed.Spec})
		}
	}
	return found
}

func (p pod) containers() []core.Container {
	return slices.Concat(p.spec.InitContainers, p.spec.Containers)
}

// The pod security standard "restricted", and a root file system that nobody can write to.
func TestEveryPodIsRestricted(t *testing.T) {
	t.Parallel()
	eachScenario(t, func(t *testing.T, all []object) {
		for _, p := range pods(all) {
			security := p.spec.SecurityContext
			if security == nil || security.RunAsNonRoot == nil || !*security.RunAsNonRoot || security.RunAsUser == nil || *security.RunAsUser == 0 {
				t.Errorf("%s may run as root", p.owner)
			}
			if security == nil || security.SeccompProfile == nil || security.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s has no seccomp profile", p.owner)
			}
			if p.spec.HostNetwork || p.spec.HostPID || p.spec.HostIPC {
				t.Errorf("%s shares its node's namespaces", p.owner)
			}
			if mounted := p.spec.AutomountServiceAccountToken; mounted == nil || *mounted {
				t.Errorf("%s gets a token for the API server", p.owner)
			}
			for _, c := range p.containers() {
				s := c.SecurityContext
				switch {
				case s == nil:
					t.Errorf("%s, %s: has no security context", p.owner, c.Name)
				case s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation:
					t.Errorf("%s, %s: may gain privileges", p.owner, c.Name)
				case s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem:
					t.Errorf("%s, %s: may write to its root file system", p.owner, c.Name)
				case s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || len(s.Capabilities.Add) > 0:
					t.Errorf("%s, %s: has capabilities", p.owner, c.Name)
				}
			}
		}
		for _, account := range find[*core.ServiceAccount](all) {
			if mounted := account.AutomountServiceAccountToken; mounted == nil || *mounted {
				t.Errorf("ServiceAccount %s: its token is mounted", account.Name)
			}
		}
	})
}

// ownContainers are those whose probes and resources are the chart's doing.
var ownContainers = []string{"shadowcat-cluster", "redis", "ping"}

func TestContainersAskForWhatTheyNeedAndHaveAMemoryLimit(t *testing.T) {
	t.Parallel()
	eachScenario(t, func(t *testing.T, all []object) {
		for _, p := range pods(all) {
			for _, c := range p.containers() {
				if !slices.Contains(ownContainers, c.Name) {
					continue
				}
				if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
					t.Errorf("%s, %s: requests or the memory limit are missing: %v", p.owner, c.Name, c.Resources)
				}
				if c.Resources.Requests.Memory().Cmp(*c.Resources.Limits.Memory()) > 0 {
					t.Errorf("%s, %s: asks for more memory than it may use", p.owner, c.Name)
				}
			}
		}
	})
}

// Restarting a replica brings no Redis back: neither liveness nor the start may depend on it. /healthz never asks it.
func TestProbesAskTheAdminPortAndLivenessNeverRedis(t *testing.T) {
	t.Parallel()
	eachScenario(t, func(t *testing.T, all []object) {
		c := program(t, all)
		for what, want := range map[string]struct {
			probe *core.Probe
			path  string
		}{
			"startup": {c.StartupProbe, "/healthz"}, "readiness": {c.ReadinessProbe, "/readyz"}, "liveness": {c.LivenessProbe, "/healthz"},
		} {
			if want.probe == nil || want.probe.HTTPGet == nil || want.probe.HTTPGet.Path != want.path || want.probe.HTTPGet.Port.StrVal != "admin" {
				t.Errorf("the %s probe is %+v, want %s on the admin port", what, want.probe, want.path)
			}
		}
		for _, p := range pods(all) {
			for _, c := range p.containers() {
				for _, probe := range []*core.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
					if probe == nil {
						continue
					}
					port := ""
					if probe.HTTPGet != nil {
						port = probe.HTTPGet.Port.StrVal
					} else if probe.TCPSocket != nil {
						port = probe.TCPSocket.Port.StrVal
					}
					if !slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.Name == port }) {
						t.Errorf("%s, %s: a probe asks the port %q, which is none of the container's", p.owner, c.Name, port)
					}
				}
			}
		}
	})
}

// program is the container of the Deployment that runs the program.
func program(t *testing.T, all []object) core.Container {
	t.Helper()
	deployments := find[*apps.Deployment](all)
	if len(deployments) != 1 {
		t.Fatalf("there are %d Deployments, want one", len(deployments))
	}
	for _, c := range deployments[0].Spec.Template.Spec.Containers {
		if c.Name == "shadowcat-cluster" {
			return c
		}
	}
	t.Fatal("no container runs the program")
	return core.Container{}
}

func TestARolloutLosesNoReplicaAndWaitsForTheDrain(t *testing.T) {
	t.Parallel()
	eachScenario(t, func(t *testing.T, all []object) {
		deployment := find[*apps.Deployment](all)[0]
		rolling := deployment.Spec.Strategy.RollingUpdate
		if rolling == nil || rolling.MaxUnavailable.IntValue() != 0 || rolling.MaxUnavailable.StrVal != "" {
			t.Errorf("a rollout may take replicas away: %+v", rolling)
		}
		drain := programSettings(t, all).DrainTimeout.Seconds()
		if grace := deployment.Spec.Template.Spec.TerminationGracePeriodSeconds; grace == nil || float64(*grace) < drain+5 {
			t.Errorf("a pod is killed %v seconds after it was told to stop, which it may take %v for", grace, drain)
		}
		// With a constraint that must be met, a rollout hangs while a node is cordoned.
		for _, constraint := range deployment.Spec.Template.Spec.TopologySpreadConstraints {
			honours := constraint.NodeTaintsPolicy != nil && *constraint.NodeTaintsPolicy == core.NodeInclusionPolicyHonor
			if constraint.WhenUnsatisfiable != core.ScheduleAnyway && !honours {
				t.Errorf("the spread over %s must be met even when a node is cordoned", constraint.TopologyKey)
			}
		}
	})
}

// Kubernetes adds to names: a Service's is a label of 63 characters at most, and of a StatefulSet's name and eleven more a label of
// its pods is made, without which there are none.
func TestTheLongestNamesAreShortEnough(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	for _, override := range []string{"nameOverride: " + long, "fullnameOverride: " + long[:53]} {
		for _, o := range objects(t, parseValues(t, override+"\nupstreams: [{url: http://u/mcp}]\nredis: {bundled: {enabled: true}}\ngrafanaDashboard: {enabled: true}")) {
			limit := 63
			if _, ok := o.Object.(*apps.StatefulSet); ok {
				limit = 52
			}
			if name := o.meta().GetName(); len(name) > limit {
				t.Errorf("%s has %d characters, of which there may be %d", o.id(), len(name), limit)
			}
			for key, value := range o.meta().GetLabels() {
				if len(value) > 63 {
					t.Errorf("%s: the label %s is too long: %s", o.id(), key, value)
				}
			}
		}
	}
}

// A Service's name is a label of the DNS that begins with a letter; a release's name may have dots, and begin with a digit.
func TestNamesOfReleasesBecomeNamesOfServices(t *testing.T) {
	t.Parallel()
	fullname := func(release string) (string, error) {
		c := loadChart(t)
		merged, err := util.ToRenderValues(c, scenarioValues(t, "default"), common.ReleaseOptions{Name: release, Namespace: namespace}, common.DefaultCapabilities)
		if err != nil {
			t.Fatal(err)
		}
		rendered, err := engine.Render(c, merged)
		if err != nil {
			return "", err
		}
		all, err := decode(rendered[chartFolder+"/templates/service.yaml"])
		if err != nil {
			t.Fatal(err)
		}
		return all[0].meta().GetName(), nil
	}
	if got, err := fullname("my.mcp"); err != nil || got != "my-mcp-shadowcat-cluster" {
		t.Errorf("the Service of my.mcp is %q, %v", got, err)
	}
	if got, err := fullname("1mcp"); err == nil || !strings.Contains(err.Error(), "fullnameOverride: not set") {
		t.Errorf("the Service of 1mcp is %q, %v", got, err)
	}
}

func TestSelectorsFindTheirPods(t *testing.T) {
	t.Parallel()
	eachScenario(t, func(t *testing.T, all []object) {
		matches := func(what string, selector map[string]string, ports ...string) {
			t.Helper()
			if len(selector) == 0 {
				t.Errorf("%s selects every pod of the namespace", what)
			}
			found := 0
			for _, p := range pods(all) {
				if !labels.SelectorFromSet(selector).Matches(labels.Set(p.labels)) {
					continue
				}
				found++
				for _, port := range ports {
					if !slices.ContainsFunc(p.containers(), func(c core.Container) bool {
						return slices.ContainsFunc(c.Ports, func(has core.ContainerPort) bool { return has.Name == port })
					}) {
						t.Errorf("%s: %s has no port %q", what, p.owner, port)
					}
				}
			}
			if found != 1 {
				t.Errorf("%s matches %d kinds of pods, want one: %v", what, found, selector)
			}
		}
		for _, d := range find[*apps.Deployment](all) {
			matches("Deployment", d.Spec.Selector.MatchLabels)
		}
		for _, s := range find[*apps.StatefulSet](all) {
			matches("StatefulSet", s.Spec.Selector.MatchLabels)
			only[*core.Service](t, all, s.Spec.ServiceName)
		}
		for _, s := range find[*core.Service](all) {
			if s.Spec.SessionAffinity == core.ServiceAffinityClientIP {
				t.Errorf("Service %s is sticky", s.Name)
			}
			for _, port := range s.Spec.Ports {
				matches("Service "+s.Name, s.Spec.Selector, port.TargetPort.StrVal)
			}
		}
		for _, b := range find[*policy.PodDisruptionBudget](all) {
			matches("PodDisruptionBudget", b.Spec.Selector.MatchLabels)
		}
		checkPolicies(t, all, matches)
		checkRoutes(t, all)
	})
}

// programSettings are what the program makes of its configuration file. It must not refuse it.
func programSettings(t *testing.T, all []object) settings.Settings {
	t.Helper()
	s, err := settings.Load(settings.Sources{File: configFile(t, all)})
	if err != nil {
		t.Fatalf("the program refuses its configuration: %v", err)
	}
	if err := s.CheckServe(); err != nil {
		t.Fatalf("the program refuses its configuration: %v", err)
	}
	return s
}
