// Package measure takes measurements in pairs and judges them: what is compared runs in turns with what it is compared to, and that
// with itself, so that the noise of the machine is seen beside each figure.
package measure

import (
	"math"
	"slices"
)

// Row is one figure with its goal.
type Row struct {
	// Name is what the figure is selected by, such as proxy-json-0ms.
	Name string `json:"name"`
	// What it is, for people.
	What string `json:"what"`
	// Unit is "x" for a ratio, else what is counted.
	Unit string `json:"unit"`
	// Goal is the limit; 0 for a figure that is only told, such as a peer's.
	Goal float64 `json:"goal,omitempty"`
	// AtLeast says that larger is better: the goal is a lower bound.
	AtLeast bool `json:"at_least,omitempty"`
	// NeedsFull marks a goal that holds at a million sessions. A quick run tells what it has measured at fewer, and does not judge.
	NeedsFull bool `json:"needs_full,omitempty"`
}

// Sample is what one pair has shown.
type Sample struct {
	Value float64 `json:"value"`
	// Control is the same measurement of a thing against its like: 1 on a machine without noise. NaN is not allowed; 0 means
	// that there is none.
	Control float64 `json:"control,omitempty"`
}

// Verdict is what became of a goal.
type Verdict string

// The verdicts.
const (
	Pass     Verdict = "pass"
	Miss     Verdict = "MISS"
	FullOnly Verdict = "full run only"
	Noisy    Verdict = "noisy" // the control is off so far that the figure says nothing
	Told     Verdict = "-"
	Failed   Verdict = "FAILED"
)

// Result is a row with all that was measured of it.
type Result struct {
	Row
	Samples []Sample `json:"samples"`
	// Median, Low and High are of the values; Control is the median of the controls, 0 without one.
	Median  float64 `json:"median"`
	Low     float64 `json:"low"`
	High    float64 `json:"high"`
	Control float64 `json:"control,omitempty"`
	// Noise is by what factor the control of half of all pairs is off at least: 1 on a machine without noise, 0 without a control.
	Noise   float64 `json:"noise,omitempty"`
	Verdict Verdict `json:"verdict"`
	// CutShort says that there are fewer pairs than were wanted: the machine was too slow.
	CutShort bool `json:"cut_short,omitempty"`
	// Error says why nothing was measured.
	Error string `json:"error,omitempty"`
}

// MaxNoise is the noise up to which a row is judged: more, and a thing is half as slow again as itself in most pairs. At an upstream that
// answers at once a quiet machine's is 1.05 to 1.15.
const MaxNoise = 1.5

// Judge sums up what was measured. A ratio passes when its median keeps the goal, give or take what the control is off: its median's
// distance from 1. A figure with a unit of its own gets no allowance. A row with more than MaxNoise is not judged.
func Judge(row Row, samples []Sample, isQuick bool) Result {
	r := Result{Row: row, Samples: samples}
	if len(samples) == 0 {
		r.Verdict, r.Error = Failed, "nothing was measured"
		return r
	}
	var values, controls, noises []float64
	for _, s := range samples {
		values = append(values, s.Value)
		if s.Control != 0 {
			controls, noises = append(controls, s.Control), append(noises, s.Noise())
		}
	}
	r.Median, r.Low, r.High = Median(values), slices.Min(values), slices.Max(values)
	r.Control, r.Noise = Median(controls), Median(noises)
	switch {
	case row.Goal == 0:
		r.Verdict = Told
	case row.NeedsFull && isQuick:
		r.Verdict = FullOnly
	case r.Noise > MaxNoise:
		r.Verdict = Noisy
	case r.keeps(r.Median, row.Goal):
		r.Verdict = Pass
	default:
		r.Verdict = Miss
	}
	return r
}

// Noise is by what factor the control is off, whichever way; 1 without a control.
func (s Sample) Noise() float64 {
	if s.Control == 0 {
		return 1
	}
	return max(s.Control, 1/s.Control)
}

// Allowance is by how much a ratio may miss its goal: what the control is off.
func (r Result) Allowance() float64 {
	if r.Unit != "x" || r.Control == 0 {
		return 0
	}
	return math.Abs(r.Control - 1)
}

func (r Result) keeps(value, goal float64) bool {
	if r.AtLeast {
		return value >= goal-r.Allowance()
	}
	return value <= goal+r.Allowance()
}

// FarOff reports whether a goal was missed by more than a busy machine explains: the median is over twice an upper bound, or under half a
// lower one, and so are over three quarters of the pairs whose own control is not off by more than MaxNoise. What has become slow is slow in
// nearly all; what the machine did to some is not. A row that could not be measured is far off, a noisy one is not.
func (r Result) FarOff() bool {
	if r.Verdict != Miss {
		return r.Verdict == Failed
	}
	bound := 2 * r.Goal
	if r.AtLeast {
		bound = r.Goal / 2
	}
	quiet, over := 0, 0
	for _, s := range r.Samples {
		if s.Noise() > MaxNoise {
			continue
		}
		quiet++
		if !r.keeps(s.Value, bound) {
			over++
		}
	}
	return !r.keeps(r.Median, bound) && 4*over > 3*quiet
}

// Median returns the middle value, of an even number the mean of the two in the middle; 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
