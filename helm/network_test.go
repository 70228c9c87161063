package helm_test

import (
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

func checkPolicies(t *testing.T, all []object, matches func(what string, selector map[string]string, ports ...string)) {
	t.Helper()
	for _, p := range find[*networking.NetworkPolicy](all) {
		var ports []string
		for _, rule := range p.Spec.Ingress {
			if len(rule.Ports) == 0 {
				t.Errorf("NetworkPolicy %s opens all ports", p.Name)
			}
			for _, port := range rule.Ports {
				ports = append(ports, port.Port.StrVal)
				if port.Port.StrVal != "http" && len(rule.From) == 0 {
					t.Errorf("NetworkPolicy %s opens %s to everybody", p.Name, port.Port.StrVal)
				}
			}
		}
		matches("NetworkPolicy "+p.Name, p.Spec.PodSelector.MatchLabels, ports...)
	}
}

// checkRoutes checks that what leads clients and Prometheus to the pods names Services and ports that there are.
func checkRoutes(t *testing.T, all []object) {
	t.Helper()
	for _, ingress := range find[*networking.Ingress](all) {
		for key, value := range ingress.Annotations {
			if strings.Contains(key, "affinity") || strings.Contains(key, "sticky") || strings.HasSuffix(key, "buffering") && value != "off" {
				t.Errorf("the Ingress is sticky, or buffers: %s=%s", key, value)
			}
		}
		for _, rule := range ingress.Spec.Rules {
			for _, path := range rule.HTTP.Paths {
				servicePort(t, all, path.Backend.Service.Name, path.Backend.Service.Port.Name, 0)
			}
		}
	}
	for _, route := range find[*gateway.HTTPRoute](all) {
		for _, rule := range route.Spec.Rules {
			if rule.SessionPersistence != nil {
				t.Error("the HTTPRoute is sticky")
			}
			if rule.Timeouts == nil || *rule.Timeouts.Request != "0s" || *rule.Timeouts.BackendRequest != "0s" {
				t.Errorf("the HTTPRoute ends streams: %+v", rule.Timeouts)
			}
			for _, backend := range rule.BackendRefs {
				servicePort(t, all, string(backend.Name), "", *backend.Port)
			}
		}
	}
	for _, monitor := range find[*monitoring.ServiceMonitor](all) {
		found := 0
		for _, service := range find[*core.Service](all) {
			if labels.SelectorFromSet(monitor.Spec.Selector.MatchLabels).Matches(labels.Set(service.Labels)) {
				found++
				for _, endpoint := range monitor.Spec.Endpoints {
					servicePort(t, all, service.Name, endpoint.Port, 0)
				}
				if !service.Spec.PublishNotReadyAddresses {
					t.Errorf("Service %s hides replicas that are not ready from Prometheus", service.Name)
				}
			}
		}
		if found != 1 {
			t.Errorf("the ServiceMonitor finds %d Services, want one", found)
		}
	}
}

// servicePort checks that a Service has a port, by name or number.
func servicePort(t *testing.T, all []object, service, name string, number int32) {
	t.Helper()
	for _, port := range only[*core.Service](t, all, service).Spec.Ports {
		if name != "" && port.Name == name || number != 0 && port.Port == number {
			return
		}
	}
	t.Errorf("Service %s has no port %q%d", service, name, number)
}
