package helm_test

import (
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
)

// What is wrong is refused before anything is installed, by its path.
func TestWrongValuesAreRefusedByTheirPath(t *testing.T) {
	t.Parallel()
	const redis = "\nredis: {external: {addresses: [r:6379]}}"
	const upstream = "\nupstreams: [{url: http://u/mcp}]"
	for values, want := range map[string]string{
		"":                                        "upstreams: not set",
		upstream:                                  "redis: not set",
		redis + "\nupstreams: [{name: a}]":        "/upstreams/0",
		redis + "\nupstreams: [{url: u}]":         "/upstreams/0/url",
		redis + "\nupstreams: [{url: 1}]":         "/upstreams/0/url",
		redis + upstream + "\nreplicas: 3":        "replicas",
		redis + upstream + "\nreplicaCount: many": "/replicaCount",

		redis + upstream + "\nconfig: {max_sesions: 1}":                                         "max_sesions",
		redis + upstream + "\nconfig: {max_sessions: lots}":                                     "/config/max_sessions",
		redis + upstream + "\nconfig: {idle_timeout: 30}":                                       "/config/idle_timeout",
		redis + upstream + "\nconfig: {idle_timeout: 30 minutes}":                               "/config/idle_timeout",
		redis + upstream + "\nconfig: {auth: {mode: basic}}":                                    "/config/auth/mode",
		redis + upstream + "\nconfig: {redis: x}":                                               "redis",
		redis + upstream + "\nimage: {digest: abc}":                                             "/image/digest",
		redis + upstream + "\nservice: {port: 0}":                                               "/service/port",
		redis + upstream + "\nterminationGracePeriodSeconds: 10":                                "terminationGracePeriodSeconds: 10 is shorter",
		redis + upstream + "\ningress: {enabled: true}":                                         "ingress.hosts: not set",
		redis + upstream + "\nhttpRoute: {enabled: true}":                                       "httpRoute.parentRefs: not set",
		redis + upstream + "\nautoscaling: {enabled: true, minReplicas: 11}":                    "autoscaling.minReplicas",
		redis + upstream + "\nconfig: {auth: {upstream_token: replace}}":                        "upstreamToken: not set",
		upstream + "\nredis: {external: {topology: sentinel, addresses: [s:26379]}}":            "redis.external.masterName: not set",
		upstream + "\nredis: {external: {topology: cluster, addresses: [s:6379], database: 1}}": "redis.external.database",
		upstream + "\nredis: {external: {addresses: ['u:p@s:6379']}}":                           "/redis/external/addresses/0",
		upstream + "\nredis: {bundled: {enabled: true}, external: {addresses: [s:6379]}}":       "choose one",
		redis + upstream + "\nresources: {limits: {memory: lots}}":                              "resources.limits.memory",
		upstream + "\nredis: {external: {addresses: ['s:6379?db=1']}}":                          "/redis/external/addresses/0",
		upstream + "\nredis: {external: {addresses: [s:6379], existingSecret: My Secret}}":      "/redis/external/existingSecret",
		upstream + "\nredis: {external: {addresses: [s:6379], sentinel: {password: p}}}":        "redis.external.sentinel.password: is set",
		upstream + "\nredis: {external: {addresses: [s:6379], tls: {existingCASecret: ca}}}":    "redis.external.tls.existingCASecret: is set",
		upstream + "\nredis: {external: {addresses: [s:6379], tls: {enabled: true, key: k}}}":   "redis.external.tls.key: is set",
		redis + "\nupstreams: [{url: 'http://user:secret@u/mcp'}]":                              "/upstreams/0/url",
		redis + "\nupstreams: [{url: 'http://u/mcp,http://user:secret@u/mcp'}]":                 "/upstreams/0/url",
		redis + "\nupstreams: [{url: 'http://u,http://user:secret@u/mcp'}]":                     "/upstreams/0/url",
		redis + "\nupstreams: [{url: 'http://u,v/mcp'}]":                                        "/upstreams/0/url",
		redis + "\nupstreams: [{url: http://u/mcp}, {url: http://v/mcp}]":                       "upstreams: two have no name",
		redis + "\nupstreams: [{name: a, url: http://u/mcp}, {name: a, url: http://v/mcp}]":     "upstreams: two have the name a",
		redis + upstream + "\nnameOverride: My_Proxy":                                           "/nameOverride",
		redis + upstream + "\nfullnameOverride: 1proxy.example":                                 "/fullnameOverride",
		redis + upstream + "\nimage: {repository: ''}":                                          "/image/repository",
		redis + upstream + "\nimage: {tag: 'v1 beta'}":                                          "/image/tag",
		redis + upstream + "\nupdateStrategy: {maxSurge: some}":                                 "/updateStrategy/maxSurge",
		redis + upstream + "\nupdateStrategy: {maxSurge: 0}":                                    "updateStrategy.maxSurge: is 0",
		redis + upstream + "\npodDisruptionBudget: {maxUnavailable: half}":                      "/podDisruptionBudget/maxUnavailable",
		redis + upstream + "\nserviceMonitor: {interval: often}":                                "/serviceMonitor/interval",
		redis + upstream + "\nprometheusRule: {enabled: true, disabled: [ShadowcatGon]}":        "prometheusRule.disabled: no alert is called ShadowcatGon",
		redis + upstream + "\ncommonLabels: {app.kubernetes.io/name: mine}":                     "commonLabels: app.kubernetes.io/name is the chart's own",
		redis + upstream + "\npodLabels: {app.kubernetes.io/component: mine}":                   "podLabels: app.kubernetes.io/component is the chart's own",
		redis + upstream + "\nextraEnv: [{name: SHADOWCAT_DRAIN_TIMEOUT, value: 5m}]":           "config.drain_timeout",
		upstream + "\nredis: {bundled: {enabled: true, persistence: {size: big}}}":              "/redis/bundled/persistence/size",
	} {
		_, err := render(t, parseValues(t, values))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("values%s\nare refused with %v, want an error that says %q", values, err, want)
		}
	}
}

// What the program takes is not refused before.
func TestUpstreamsAndNamesThatAreRightAreTaken(t *testing.T) {
	t.Parallel()
	const redis = "\nredis: {external: {addresses: [r:6379]}}"
	for _, values := range []string{
		"upstreams: [{url: 'http://u/mcp?tools=a,b'}]",
		"upstreams: [{url: 'http://u/a,b/mcp'}]",
		"upstreams: [{url: 'http://u/@a/mcp'}]",
		"upstreams: [{url: 'http://u/mcp?tools=a,b,https://v:9000/mcp'}]",
		"upstreams: [{url: 'http://u,http://v'}]",
		"upstreams: [{url: 'dns+http://u:8080/mcp'}]",
		"upstreams: [{url: http://u/mcp}]\nnameOverride: 2nd",
	} {
		if _, err := render(t, parseValues(t, values+redis)); err != nil {
			t.Errorf("values\n%s\nare refused: %v", values, err)
		}
	}
}

// A URL with a secret in it may come from a Secret, by the environment.
func TestTheEnvironmentMayNameUpstreamsAndRedis(t *testing.T) {
	t.Parallel()
	all := objects(t, parseValues(t, `
extraEnv:
  - name: SHADOWCAT_UPSTREAM
    valueFrom: {secretKeyRef: {name: urls, key: upstream}}
  - name: SHADOWCAT_REDIS
    valueFrom: {secretKeyRef: {name: urls, key: redis}}
`))
	if got := len(program(t, all).Env); got != 4 {
		t.Errorf("the program has %d variables", got)
	}
}

func TestLintFindsNothing(t *testing.T) {
	t.Parallel()
	lint := func(what string, values map[string]any) {
		linter := action.NewLint()
		linter.Strict = true
		result := linter.Run([]string{chartFolder}, values)
		for _, message := range result.Messages {
			if message.Severity > 1 { // beyond information
				t.Errorf("%s: %v", what, message)
			}
		}
		for _, err := range result.Errors {
			t.Errorf("%s: %v", what, err)
		}
	}
	lint("without values", map[string]any{})
	for _, name := range scenarios(t) {
		lint(name, scenarioValues(t, name))
	}
}
