package admin

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const sharedHelp = " Counted by the store, the same at every replica: do not sum over replicas."

// sharedCollector asks, at each scrape, for the numbers that live elsewhere: in the store, in the manager.
type sharedCollector struct {
	sessions Sessions
	timeout  time.Duration
	up       func() bool
	breakers func() redisstore.Breakers // may be nil
	lag      func() (time.Duration, bool)
	dropped  func() int64 // may be nil
}

var (
	storeUpDesc    = prometheus.NewDesc("shadowcat_store_up", "1 when this replica's last probe of the store was answered, else 0.", nil, nil)
	heldDesc       = prometheus.NewDesc("shadowcat_leases_held", "Sessions this replica knows: those it serves, and those it could serve without the store.", nil, nil)
	partsDesc      = prometheus.NewDesc("shadowcat_store_breakers", "Parts of the store that fail by themselves: one, of a Redis Cluster one for each range of slots.", nil, nil)
	openDesc       = prometheus.NewDesc("shadowcat_store_breakers_open", "Those of them that this replica does not ask at present but for a probe every 500 ms, because they did not answer.", nil, nil)
	tripsDesc      = prometheus.NewDesc("shadowcat_store_breaker_trips_total", "How often a part of the store became one of those.", nil, nil)
	byStatusDesc   = prometheus.NewDesc("shadowcat_sessions", "Session records by status; initializing and active ones are live."+sharedHelp, []string{"status"}, nil)
	dueDesc        = prometheus.NewDesc("shadowcat_sessions_due", "Live sessions past their end that nobody has ended yet."+sharedHelp, nil, nil)
	lagDesc        = prometheus.NewDesc("shadowcat_sweep_lag_seconds", "For how long the session that waits the longest has been waiting to be cleaned up."+sharedHelp, nil, nil)
	behindDesc     = prometheus.NewDesc("shadowcat_sweep_behind", "1 when that is longer than three sweep intervals, else 0.", nil, nil)
	createdDesc    = prometheus.NewDesc("shadowcat_sessions_created_total", "Sessions created since the store was first used."+sharedHelp, nil, nil)
	droppedDesc    = prometheus.NewDesc("shadowcat_audit_dropped_total", "Audit records that this replica could not write to the stream in the store. The log has them.", nil, nil)
	endedTotalDesc = prometheus.NewDesc("shadowcat_sessions_ended_total", "Sessions ended since the store was first used, by final status."+sharedHelp, []string{"status"}, nil)
)

// Describe tells the registry which metrics there are.
func (c *sharedCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{storeUpDesc, heldDesc, partsDesc, openDesc, tripsDesc, byStatusDesc, dueDesc, lagDesc, behindDesc, droppedDesc, createdDesc, endedTotalDesc} {
		descs <- d
	}
}

// Collect asks the store once. While it is away its numbers are left out: a gap in a graph is true, a zero is not.
func (c *sharedCollector) Collect(metrics chan<- prometheus.Metric) {
	up := c.up()
	metrics <- prometheus.MustNewConstMetric(storeUpDesc, prometheus.GaugeValue, number(up))
	metrics <- prometheus.MustNewConstMetric(heldDesc, prometheus.GaugeValue, float64(c.sessions.Held()))
	if c.breakers != nil {
		b := c.breakers()
		metrics <- prometheus.MustNewConstMetric(partsDesc, prometheus.GaugeValue, float64(b.Parts))
		metrics <- prometheus.MustNewConstMetric(openDesc, prometheus.GaugeValue, float64(b.Open))
		metrics <- prometheus.MustNewConstMetric(tripsDesc, prometheus.CounterValue, float64(b.Trips))
	}
	if c.dropped != nil {
		metrics <- prometheus.MustNewConstMetric(droppedDesc, prometheus.CounterValue, float64(c.dropped()))
	}
	_, behind := c.lag()
	metrics <- prometheus.MustNewConstMetric(behindDesc, prometheus.GaugeValue, number(behind))
	if !up {
		return // the answer is known, and asking would cost the whole timeout
	}
	// A collector is given no context; the timeout alone bounds the call.
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	stats, err := c.sessions.Stats(ctx)
	if err != nil {
		return
	}
	metrics <- prometheus.MustNewConstMetric(dueDesc, prometheus.GaugeValue, float64(stats.Due))
	metrics <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, stats.Lag.Seconds())
	metrics <- prometheus.MustNewConstMetric(createdDesc, prometheus.CounterValue, float64(stats.Created))
	for _, status := range cluster.Statuses() {
		metrics <- prometheus.MustNewConstMetric(byStatusDesc, prometheus.GaugeValue, float64(stats.ByStatus[status]), string(status))
		if status.Ended() {
			metrics <- prometheus.MustNewConstMetric(endedTotalDesc, prometheus.CounterValue, float64(stats.Ended[status]), string(status))
		}
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
