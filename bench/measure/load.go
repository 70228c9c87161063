package measure

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
)

// The range and precision of histograms: a microsecond's hundredth to a minute, three digits.
const (
	longest = int64(time.Minute / histogramUnit)
	digits  = 3
	// histogramUnit is one count of a histogram's value.
	histogramUnit = 10 * time.Nanosecond
)

// Load is a number of callers that call again and again.
type Load struct {
	Callers int
	// Rate is how many calls a second are due, of all callers together; 0: each calls again as soon as it has its answer.
	Rate float64
	// For is how long calls are begun.
	For time.Duration
	// Until, when it is closed, ends that earlier; nil: nothing does.
	Until <-chan struct{}
	// Do makes the nth call of a caller.
	Do func(ctx context.Context, caller, n int) error
}

// Latencies are how long calls took.
type Latencies struct {
	histogram *hdrhistogram.Histogram
	took      time.Duration
}

// Run calls, and returns how long calls took. With a rate the time counts from the moment at which a call was due, if its caller was
// still busy then with the call before: a server that stops for a second has kept everybody waiting who would have called meanwhile,
// not one caller. What a timer is late is the load's own fault, and does not count. The first error ends it.
func (l Load) Run(ctx context.Context) (*Latencies, error) {
	group, ctx := errgroup.WithContext(ctx)
	all := &Latencies{histogram: newHistogram()}
	var mu sync.Mutex // guards all
	begun := time.Now()
	for caller := range l.Callers {
		group.Go(func() error {
			mine, err := l.call(ctx, caller, begun)
			mu.Lock()
			defer mu.Unlock()
			all.histogram.Merge(mine)
			return err
		})
	}
	err := group.Wait()
	all.took = time.Since(begun)
	return all, err
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest, digits) }

// call is what one caller does.
func (l Load) call(ctx context.Context, caller int, begun time.Time) (*hdrhistogram.Histogram, error) {
	took := newHistogram()
	var every time.Duration
	if l.Rate > 0 {
		every = time.Duration(float64(l.Callers) / l.Rate * float64(time.Second))
	}
	due := begun.Add(every * time.Duration(caller) / time.Duration(l.Callers)) // not all at once
	for n := 0; time.Since(begun) < l.For && !l.isOver(); n++ {
		from := time.Now()
		if l.Rate > 0 {
			if early := due.Sub(from); early > 0 {
				if err := Wait(ctx, early); err != nil {
					return took, err
				}
				from = time.Now()
			} else {
				from = due
			}
			due = due.Add(every)
		}
		if err := l.Do(ctx, caller, n); err != nil {
			return took, err
		}
		_ = took.RecordValue(min(int64(time.Since(from)/histogramUnit), longest)) // in range
	}
	return took, nil
}

func (l Load) isOver() bool {
	select {
	case <-l.Until:
		return true
	default:
		return false
	}
}

// Quantile is the latency that a share of all calls, 0 to 1, did not exceed.
func (l *Latencies) Quantile(share float64) time.Duration {
	return time.Duration(l.histogram.ValueAtQuantile(100*share)) * histogramUnit
}

// Calls is how many there were.
func (l *Latencies) Calls() int64 { return l.histogram.TotalCount() }

// PerSecond is how many calls were answered a second.
func (l *Latencies) PerSecond() float64 { return float64(l.Calls()) / l.took.Seconds() }

// Merge adds the calls of another.
func (l *Latencies) Merge(other *Latencies) {
	l.histogram.Merge(other.histogram)
	l.took += other.took
}

// Wait waits for d, or until ctx is done.
func Wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
