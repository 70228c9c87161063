package tracing

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
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
		return true, errors.Join(checkSwitches(), checkProtocol(), checkExporter(), checkAttributes(), checkNumbers(), checkSampler(), checkPropagators())
	default:
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER: %q is not supported; accepted are otlp and none", exporter)
	}
}

// unheeded names, in order, the variables of OpenTelemetry that somebody has set who has not said whether traces are wanted.
func unheeded() (names []string) {
	if value("OTEL_TRACES_EXPORTER") != "" || strings.EqualFold(value("OTEL_SDK_DISABLED"), "true") {
		return nil
	}
	for _, variable := range os.Environ() {
		if name, set, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OTEL_") && strings.TrimSpace(set) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
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

func checkSwitches() (err error) {
	for _, name := range []string{"OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_INSECURE", "OTEL_EXPORTER_OTLP_TRACES_INSECURE"} {
		err = errors.Join(err, checkOneOf(name, strings.ToLower(value(name)), "true", "false"))
	}
	return err
}

func checkOneOf(name, set string, accepted ...string) error {
	if set != "" && !slices.Contains(accepted, set) {
		return fmt.Errorf("%s: %q is not supported; accepted are %s", name, set, strings.Join(accepted, ", "))
	}
	return nil
}

func checkSampler() error {
	samplers := []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}
	sampler := cmp.Or(strings.ToLower(value("OTEL_TRACES_SAMPLER")), samplers[0])
	if err := checkOneOf("OTEL_TRACES_SAMPLER", sampler, samplers...); err != nil {
		return err
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

// number is a variable that must be a whole number of some range.
type number struct {
	name      string
	low, high int
	unit      string
}

// maxLimit is the most that the limits of a span may be.
const maxLimit = 1_000_000

// numbers have bounds that keep a slip harmless: a delay of 0 would keep a core busy, and the queue lies in memory.
var numbers = []number{
	{"OTEL_EXPORTER_OTLP_TIMEOUT", 1, 600_000, "milliseconds"},
	{"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 1, 600_000, "milliseconds"},
	{"OTEL_BSP_SCHEDULE_DELAY", 10, 3_600_000, "milliseconds"},
	{"OTEL_BSP_EXPORT_TIMEOUT", 1, 600_000, "milliseconds"},
	{"OTEL_BSP_MAX_QUEUE_SIZE", 1, 100_000, "spans"},
	{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, 10_000, "spans"},
	{"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", -1, maxLimit, "characters (-1: no limit)"},
	{"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", -1, maxLimit, "characters (-1: no limit)"},
	{"OTEL_ATTRIBUTE_COUNT_LIMIT", -1, maxLimit, "attributes (-1: no limit)"},
	{"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", -1, maxLimit, "attributes (-1: no limit)"},
	{"OTEL_SPAN_EVENT_COUNT_LIMIT", -1, maxLimit, "events (-1: no limit)"},
	{"OTEL_SPAN_LINK_COUNT_LIMIT", -1, maxLimit, "links (-1: no limit)"},
	{"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", -1, maxLimit, "attributes (-1: no limit)"},
	{"OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", -1, maxLimit, "attributes (-1: no limit)"},
}

// checkNumbers takes no spaces around a number: the libraries would pass over it.
func checkNumbers() (err error) {
	for _, want := range numbers {
		set := os.Getenv(want.name)
		if n, parseErr := strconv.Atoi(set); set != "" && (parseErr != nil || n < want.low || n > want.high) {
			err = errors.Join(err, fmt.Errorf("%s: %q is no whole number from %d to %d %s", want.name, set, want.low, want.high, want.unit))
		}
	}
	batch, batchErr := strconv.Atoi(os.Getenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"))
	queue, queueErr := strconv.Atoi(cmp.Or(os.Getenv("OTEL_BSP_MAX_QUEUE_SIZE"), strconv.Itoa(sdktrace.DefaultMaxQueueSize)))
	if batchErr == nil && queueErr == nil && batch > queue {
		err = errors.Join(err, fmt.Errorf("OTEL_BSP_MAX_EXPORT_BATCH_SIZE: %d is more than the %d of OTEL_BSP_MAX_QUEUE_SIZE", batch, queue))
	}
	return err
}
