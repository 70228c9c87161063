package tracing

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// checkEnvironment reports whether spans are wanted, and whether what the environment says of them is understood: what the libraries
// cannot do they would leave out, or do in another way, with a line in the log at best.
func checkEnvironment() (wanted bool, err error) {
	if strings.EqualFold(value("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	switch exporter := value("OTEL_TRACES_EXPORTER"); exporter {
	case "", "none":
		return false, nil
	case "otlp":
		return true, errors.Join(checkProtocol(), checkEndpoint(), checkSampler(), checkPropagators())
	default:
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER: %q is not supported; accepted are otlp and none", exporter)
	}
}

func value(name string) string { return strings.TrimSpace(os.Getenv(name)) }

// effective is the first of some variables that is set, and its value.
func effective(names ...string) (name, set string) {
	for _, name = range names {
		if set = value(name); set != "" {
			return name, set
		}
	}
	return name, ""
}

func checkProtocol() error {
	name, protocol := effective("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	if protocol != "" && protocol != "http/protobuf" {
		return fmt.Errorf("%s: %q is not supported; the only protocol is http/protobuf, which collectors take at port 4318", name, protocol)
	}
	return nil
}

// checkEndpoint never prints the URL, which may hold a password.
func checkEndpoint() error {
	name, endpoint := effective("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	u, err := url.Parse(endpoint)
	if endpoint != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("%s: it must be a URL such as http://collector:4318", name)
	}
	return nil
}

func checkSampler() error {
	samplers := []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}
	sampler := cmp.Or(strings.ToLower(value("OTEL_TRACES_SAMPLER")), samplers[0])
	if !slices.Contains(samplers, sampler) {
		return fmt.Errorf("OTEL_TRACES_SAMPLER: %q is not supported; accepted are %s", sampler, strings.Join(samplers, ", "))
	}
	if share := value("OTEL_TRACES_SAMPLER_ARG"); share != "" && strings.HasSuffix(sampler, "traceidratio") {
		if n, err := strconv.ParseFloat(share, 64); err != nil || !(n >= 0 && n <= 1) {
			return fmt.Errorf("OTEL_TRACES_SAMPLER_ARG: %q is no share between 0 and 1", share)
		}
	}
	return nil
}

// checkPropagators takes what is done anyway: traceparent and tracestate are read and written, baggage passes through.
func checkPropagators() error {
	for propagator := range strings.SplitSeq(value("OTEL_PROPAGATORS"), ",") {
		if propagator = strings.TrimSpace(propagator); propagator != "" && propagator != "tracecontext" && propagator != "baggage" {
			return fmt.Errorf("OTEL_PROPAGATORS: %q is not supported; accepted are tracecontext and baggage", propagator)
		}
	}
	return nil
}
