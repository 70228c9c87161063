package admin

import "github.com/prometheus/client_golang/prometheus"

var (
	recordedFamily = Family{
		Name: "frames_recorded_total", Kind: KindCounter,
		Help: "Messages that this replica has recorded in the store.",
	}
	droppedFamily = Family{
		Name: "frames_dropped_total", Kind: KindCounter,
		Help:  "Messages that this replica did not record: they came too fast, or the store did not take them.",
		Worry: "It grows, if somebody relies on recordings.",
	}
)

// frameMetrics count what becomes of messages that are recorded.
type frameMetrics struct{ recorded, dropped prometheus.Counter }

func newFrameMetrics(r *prometheus.Registry) frameMetrics {
	return frameMetrics{recorded: recordedFamily.counter(r), dropped: droppedFamily.counter(r)}
}

// FramesRecorded counts messages that were recorded.
func (m *Metrics) FramesRecorded(n int) { m.frames.recorded.Add(float64(n)) }

// FramesDropped counts messages that were not, and will not be.
func (m *Metrics) FramesDropped(n int) { m.frames.dropped.Add(float64(n)) }
