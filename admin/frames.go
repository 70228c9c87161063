package admin

import "github.com/prometheus/client_golang/prometheus"

// frameMetrics count what becomes of messages that are recorded.
type frameMetrics struct{ recorded, dropped prometheus.Counter }

func newFrameMetrics(registry *prometheus.Registry) frameMetrics {
	m := frameMetrics{
		recorded: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "frames_recorded_total",
			Help: "Messages that this replica has recorded in the store.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "frames_dropped_total",
			Help: "Messages that this replica did not record: they came too fast, or the store did not take them.",
		}),
	}
	registry.MustRegister(m.recorded, m.dropped)
	return m
}

// FramesRecorded counts messages that were recorded.
func (m *Metrics) FramesRecorded(n int) { m.frames.recorded.Add(float64(n)) }

// FramesDropped counts messages that were not, and will not be.
func (m *Metrics) FramesDropped(n int) { m.frames.dropped.Add(float64(n)) }
