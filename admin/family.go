package admin

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

const namespace = "shadowcat_"

// Kind is the type of a metric.
type Kind string

// The kinds of metrics.
const (
	KindCounter   Kind = "counter"
	KindGauge     Kind = "gauge"
	KindHistogram Kind = "histogram"
)

// Family is all there is to say about the metrics of one name. What is exposed and what docs/metrics.md says are both made of it.
type Family struct {
	// Name is without the prefix that all have in common.
	Name string
	Kind Kind
	Help string
	// Labels are in the order in which their values are given.
	Labels []Label
	// Buckets are the upper bounds of a histogram's buckets.
	Buckets []float64
	// IsShared says that it is counted by the store, the same at every replica.
	IsShared bool
	// Only says when it is there; empty: always.
	Only string
	// Worry says what value should make an operator look, and at what.
	Worry string
}

// Label is one label of a family.
type Label struct {
	Name string
	// Values are all that there can be; none: Meaning tells.
	Values  []string
	Meaning string // may be empty where the values say it
}

// FullName is the name as it is exposed.
func (f Family) FullName() string { return namespace + f.Name }

const sharedHelp = " Counted by the store, the same at every replica: do not sum over replicas."

// help is what is exposed.
func (f Family) help() string {
	if f.IsShared {
		return f.Help + sharedHelp
	}
	return f.Help
}

func (f Family) labelNames() []string {
	names := make([]string, len(f.Labels))
	for i, l := range f.Labels {
		names[i] = l.Name
	}
	return names
}

// desc is for collectors that make their metrics at each scrape.
func (f Family) desc() *prometheus.Desc {
	return prometheus.NewDesc(f.FullName(), f.help(), f.labelNames(), nil)
}

func (f Family) counters(r *prometheus.Registry) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.FullName(), Help: f.help()}, f.labelNames())
	r.MustRegister(c)
	return c
}

func (f Family) counter(r *prometheus.Registry) prometheus.Counter {
	return f.counters(r).WithLabelValues()
}

func (f Family) gauge(r *prometheus.Registry) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: f.FullName(), Help: f.help()})
	r.MustRegister(g)
	return g
}

func (f Family) histograms(r *prometheus.Registry) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: f.FullName(), Help: f.help(), Buckets: f.Buckets}, f.labelNames())
	r.MustRegister(h)
	return h
}

func (f Family) histogram(r *prometheus.Registry) prometheus.Observer {
	return f.histograms(r).WithLabelValues()
}

// byValue returns the counters of a family with one label, for each value that it can have. They are exposed from the start, at zero:
// the first time something happens is an increase, too. Any other value has none, so that nobody can invent one.
func (f Family) byValue(r *prometheus.Registry) map[string]prometheus.Counter {
	all := f.counters(r)
	known := make(map[string]prometheus.Counter)
	for _, value := range f.Labels[0].Values {
		known[value] = all.WithLabelValues(value)
	}
	return known
}

// add adds to the counter of a value, if there is one.
func add(counters map[string]prometheus.Counter, value string, n int) {
	if c, known := counters[value]; known {
		c.Add(float64(n))
	}
}

// memo remembers what was made for each key. Looking up costs neither a lock nor memory, so there must be few keys.
type memo[K comparable, V any] struct {
	made atomic.Pointer[map[K]V]
	mu   sync.Mutex // one at a time makes
	make func(K) V
}

func newMemo[K comparable, V any](f func(K) V) *memo[K, V] {
	m := &memo[K, V]{make: f}
	m.made.Store(&map[K]V{})
	return m
}

func (m *memo[K, V]) of(key K) V {
	if v, found := (*m.made.Load())[key]; found {
		return v
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := *m.made.Load()
	if v, found := before[key]; found {
		return v
	}
	after := maps.Clone(before)
	after[key] = m.make(key)
	m.made.Store(&after)
	return after[key]
}

// oneOf returns value if a label may have it, else "other".
func (l Label) oneOf(value string) string {
	if slices.Contains(l.Values, value) {
		return value
	}
	return other
}

// other stands for every value of a label that is not one of a few.
const other = "other"

// texts turns words of another package into values of a label.
func texts[S ~string](words []S) []string {
	values := make([]string, len(words))
	for i, w := range words {
		values[i] = string(w)
	}
	return values
}
