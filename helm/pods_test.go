package helm_test

import (
	"slices"
	"testing"

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
