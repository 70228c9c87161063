package measure

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Experiment measures one row, or several at once.
type Experiment struct {
	Rows []Row
	// Pairs is how many pairs are measured, beside one that only warms up; 0: as many as the run wants.
	Pairs int
	// Prepare is called first; nil: there is nothing to prepare.
	Prepare func(ctx context.Context) error
	// Pair measures each row once, in their order. Turn 0 warms up, and does not count.
	Pair func(ctx context.Context, turn int) ([]Sample, error)
	// Curves tells how latencies were spread over all pairs, once they are measured; nil: none were.
	Curves func() []Curve
	// Close is called last, whatever happened; nil: there is nothing to close.
	Close func() error
}

// Name is that of the first row.
func (e Experiment) Name() string { return e.Rows[0].Name }

// Turns is how often Progress is told of an experiment: of its preparation, its warm-up, and each pair.
func (e Experiment) Turns(pairs int) int { return 2 + e.pairs(pairs) }

func (e Experiment) pairs(pairs int) int {
	if e.Pairs > 0 {
		return e.Pairs
	}
	return pairs
}

// Effort is how much a run does.
type Effort struct {
	// Pairs is how many are measured, of an experiment that does not want another number.
	Pairs int
	// Quick says that there are too few sessions for some goals.
	Quick bool
	// Enough is after how long, once all is prepared, an experiment ends with the pairs that it has then, fewestPairs at least; 0: never.
	Enough time.Duration
}

// fewestPairs are those that a median is worth something of.
const fewestPairs = 3

// Run does an experiment and judges its rows. What fails is told in the results; the error is ctx's.
func (e Experiment) Run(ctx context.Context, effort Effort, progress func()) ([]Result, error) {
	samples, err := e.measure(ctx, effort, progress)
	if e.Close != nil {
		err = errors.Join(err, e.Close())
	}
	results := make([]Result, len(e.Rows))
	for i, row := range e.Rows {
		results[i] = Judge(row, samples[i], effort.Quick)
		results[i].CutShort = len(samples[i]) < e.pairs(effort.Pairs)
		if err != nil {
			results[i].Verdict, results[i].Error = Failed, err.Error()
		}
	}
	return results, context.Cause(ctx)
}

func (e Experiment) measure(ctx context.Context, effort Effort, progress func()) ([][]Sample, error) {
	samples := make([][]Sample, len(e.Rows))
	if e.Prepare != nil {
		if err := e.Prepare(ctx); err != nil {
			return samples, fmt.Errorf("prepare %s: %w", e.Name(), err)
		}
	}
	progress()
	begun := time.Now()
	for turn := range e.pairs(effort.Pairs) + 1 {
		if effort.Enough > 0 && turn > fewestPairs && time.Since(begun) > effort.Enough {
			break
		}
		pair, err := e.Pair(ctx, turn)
		if err != nil {
			return samples, fmt.Errorf("measure %s: %w", e.Name(), err)
		}
		progress()
		if turn == 0 {
			continue
		}
		for i := range e.Rows {
			samples[i] = append(samples[i], pair[i])
		}
	}
	return samples, nil
}
