// Package rows are the figures that the benchmark prints, one file for each of what is measured.
package rows

import (
	"time"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
)

// Plan is how much to measure.
type Plan struct {
	// Quick is what a run of a minute has time for.
	Quick bool
	// Many is how many sessions a large store holds.
	Many int
}

// Full is the plan that goals are judged by.
func Full() Plan { return Plan{Many: 1_000_000} }

// Quick is a coarser one.
func Quick() Plan { return Plan{Many: 100_000, Quick: true} }

// quickEnough is twice what a quick experiment takes on a quiet machine.
const quickEnough = 20 * time.Second

// Effort is how much is done of each experiment.
func (p Plan) Effort(pairs int) measure.Effort {
	return measure.Effort{Pairs: pairs, Quick: p.Quick, Enough: p.full(0, quickEnough)}
}

// full returns how long to measure: the first in a full run, the second in a quick one.
func (p Plan) full(full, quick time.Duration) time.Duration {
	if p.Quick {
		return quick
	}
	return full
}

// All returns all experiments, in the order of the table.
func All(p Plan) []measure.Experiment {
	return append(proxyLatency(p), updates(p), serverCPU(p), handlers(p), leaseScript(p), sweep(p), callersWhileSweeping(p), createAtCap(p), allocations(p), memory(p))
}
