package cluster_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestComplaintsAboutAnOutageAreForWhoDebugs(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	away := fmt.Errorf("sweeping: %w", cluster.ErrStoreUnavailable)
	other := errors.New("another fault")
	const debug, info, warn = slog.LevelDebug, slog.LevelInfo, slog.LevelWarn
	type step struct {
		at     float64 // seconds since start
		err    error   // nil: it worked
		level  slog.Level
		isNews bool
	}
	for name, c := range map[string]struct {
		outages [][2]float64 // from when on it is known, and until when; in seconds
		steps   []step
	}{
		"an outage that is not known at once": {
			outages: [][2]float64{{1, 11}},
			steps: []step{
				{0, away, debug, true}, {1, away, debug, false}, {10, away, debug, false}, {11, nil, debug, true}, {12, nil, debug, false},
			},
		},
		"a fault that is none": {
			steps: []step{
				{0, away, debug, true}, {2.9, away, debug, false}, {3, away, warn, true}, {4, away, warn, false}, {5, nil, info, true}, {6, nil, debug, false},
			},
		},
		"faults that are not the store's": {
			outages: [][2]float64{{0, 10}},
			steps:   []step{{1, other, warn, true}, {2, away, debug, false}, {3, other, warn, false}, {4, nil, info, true}},
		},
		"an outage long after one, with nothing between": {
			outages: [][2]float64{{0, 5}, {101, 110}},
			steps:   []step{{1, away, debug, true}, {100, away, debug, false}, {102, away, debug, false}, {111, nil, debug, true}},
		},
		"a fault that goes on after an outage": {
			outages: [][2]float64{{0, 5}},
			steps:   []step{{1, away, debug, true}, {6, away, debug, false}, {9, away, warn, true}, {10, nil, info, true}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			complaint := cluster.NewComplaint(func(sent time.Time) bool {
				for _, o := range c.outages {
					if at := sent.Sub(start).Seconds(); o[0] <= at && at < o[1] {
						return true
					}
				}
				return false
			})
			for _, s := range c.steps {
				var (
					got    slog.Level
					isNews bool
				)
				if s.err == nil {
					got, isNews = complaint.Worked()
				} else {
					got, isNews = complaint.Failed(s.err, start.Add(time.Duration(s.at*float64(time.Second))))
				}
				if isNews != s.isNews || got != s.level && (s.err != nil || isNews) {
					t.Errorf("at %v s, %v: %s, news %v; want %s, %v", s.at, s.err, got, isNews, s.level, s.isNews)
				}
			}
		})
	}
}

func TestWhoKnowsOfNoOutageIsToldOfEveryFault(t *testing.T) {
	t.Parallel()
	complaint := cluster.NewComplaint(nil)
	if level, isNews := complaint.Failed(cluster.ErrStoreUnavailable, time.Now()); level != slog.LevelWarn || !isNews {
		t.Errorf("%s, news %v; want a warning that is news", level, isNews)
	}
	if level, isNews := complaint.Worked(); level != slog.LevelInfo || !isNews {
		t.Errorf("when it works again: %s, news %v", level, isNews)
	}
}
