// Package collector is an OpenTelemetry collector for tests: it takes spans, as OTLP over HTTP in protobuf, and keeps them.
package collector

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// maxRequest bounds what is read of one request.
const maxRequest = 16 << 20

// Span is one span. Ids are in hexadecimal, the parent's is empty of a root.
type Span struct {
	Trace, ID, Parent string
	Name              string
	Kind              tracepb.Span_SpanKind
	Begun, Ended      time.Time
	Failed            bool
	Attributes        map[string]string
	Service           map[string]string // the attributes of who sent it
}

// Collector is one collector.
type Collector struct {
	server *httptest.Server

	mu    sync.Mutex
	spans []Span
	texts []string // each request, as text
	fault error    // the first request that was none
}

// Start starts a collector. The caller must call Close.
func Start() *Collector {
	c := &Collector{}
	c.server = httptest.NewServer(c)
	return c
}

// Environment are the variables with which a process sends its spans here, at once.
func (c *Collector) Environment() []string {
	return []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT=" + c.server.URL, "OTEL_BSP_SCHEDULE_DELAY=50"}
}

// Close ends the collector. The error is that of the first request which was none of OTLP.
func (c *Collector) Close() error {
	c.server.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fault
}

// ServeHTTP implements http.Handler.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	request := new(collectorpb.ExportTraceServiceRequest)
	if err == nil {
		err = proto.Unmarshal(body, request)
	}
	if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || err != nil {
		c.mu.Lock()
		c.fault = cmp.Or(c.fault, fmt.Errorf("%s %s of %q is no OTLP request: %w", r.Method, r.URL, r.Header.Get("Content-Type"), err))
		c.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.take(request)
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty message says that all was taken
}

func (c *Collector) take(request *collectorpb.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.texts = append(c.texts, request.String())
	for _, from := range request.GetResourceSpans() {
		service := attributes(from.GetResource().GetAttributes())
		for _, scope := range from.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, Span{
					Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					Name: s.GetName(), Kind: s.GetKind(), Begun: moment(s.GetStartTimeUnixNano()), Ended: moment(s.GetEndTimeUnixNano()),
					Failed:     s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
					Attributes: attributes(s.GetAttributes()), Service: service,
				})
			}
		}
	}
}

func moment(nanoseconds uint64) time.Time {
	return time.Unix(0, int64(nanoseconds))
}

// attributes are a list's, as text.
func attributes(list []*commonpb.KeyValue) map[string]string {
	all := make(map[string]string, len(list))
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			all[a.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			all[a.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		default:
			all[a.GetKey()] = a.GetValue().String()
		}
	}
	return all
}

// Spans returns the spans of a name that have come, in the order in which they began.
func (c *Collector) Spans(name string) []Span {
	return c.sorted(func(s Span) bool { return s.Name == name })
}

// Below returns the spans under another that have come, in the order in which they began.
func (c *Collector) Below(parent Span) []Span {
	return c.sorted(func(s Span) bool { return s.Trace == parent.Trace && s.Parent == parent.ID })
}

func (c *Collector) sorted(fits func(Span) bool) []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var some []Span
	for _, s := range c.spans {
		if fits(s) {
			some = append(some, s)
		}
	}
	slices.SortStableFunc(some, func(a, b Span) int { return a.Begun.Compare(b.Begun) })
	return some
}

// Text is all that was sent, to search for what should not have been.
func (c *Collector) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.texts, "\n")
}

// Tree draws a span and those below it that have come, a line each: how long after the first it began, how long it took, its name, and
// those of its attributes that are asked for.
func (c *Collector) Tree(root Span, shown ...string) string {
	var tree strings.Builder
	c.draw(&tree, root, root.Begun, "", shown)
	return tree.String()
}

func (c *Collector) draw(tree *strings.Builder, s Span, zero time.Time, indent string, shown []string) {
	fmt.Fprintf(tree, "%7.2f ms %7.2f ms  %s%s", milliseconds(s.Begun.Sub(zero)), milliseconds(s.Ended.Sub(s.Begun)), indent, s.Name)
	for _, key := range shown {
		if value := s.Attributes[key]; value != "" {
			fmt.Fprintf(tree, "  %s=%s", key, value)
		}
	}
	tree.WriteByte('\n')
	for _, below := range c.Below(s) {
		c.draw(tree, below, zero, indent+"  ", shown)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
