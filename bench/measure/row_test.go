package measure_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
)

func TestJudgeAllowsARatioWhatTheControlIsOff(t *testing.T) {
	t.Parallel()
	atMost, atLeast := measure.Row{Unit: "x", Goal: 1.05}, measure.Row{Unit: "x", Goal: 5, AtLeast: true}
	for name, c := range map[string]struct {
		row            measure.Row
		value, control float64
		want           measure.Verdict
		isFarOff       bool
	}{
		"kept":                            {atMost, 1.05, 1, measure.Pass, false},
		"missed":                          {atMost, 1.06, 1, measure.Miss, false},
		"noise above":                     {atMost, 1.06, 1.02, measure.Pass, false},
		"noise below":                     {atMost, 1.06, 0.98, measure.Pass, false},
		"missed by far":                   {atMost, 2.2, 1, measure.Miss, true},
		"larger is better":                {atLeast, 5.1, 1, measure.Pass, false},
		"larger is better, missed":        {atLeast, 4.8, 1, measure.Miss, false},
		"larger is better, noise":         {atLeast, 4.9, 1.2, measure.Pass, false},
		"too much noise above":            {atMost, 9, 1.51, measure.Noisy, false},
		"too much noise below":            {atMost, 1, 0.66, measure.Noisy, false},
		"larger is better, missed by far": {atLeast, 2.4, 1, measure.Miss, true},
		"no allowance for bytes":          {measure.Row{Unit: "B", Goal: 700}, 700.1, 0.8, measure.Miss, false},
		"no goal":                         {measure.Row{Unit: "x"}, 99, 1, measure.Told, false},
	} {
		got := measure.Judge(c.row, []measure.Sample{{Value: c.value, Control: c.control}}, false)
		if got.Verdict != c.want || got.FarOff() != c.isFarOff {
			t.Errorf("%s: %s, far off: %t; want %s, %t", name, got.Verdict, got.FarOff(), c.want, c.isFarOff)
		}
	}
}

func TestJudgeTakesMedians(t *testing.T) {
	t.Parallel()
	got := measure.Judge(measure.Row{Unit: "x", Goal: 2}, []measure.Sample{{1, 3}, {9, 1}, {2, 1}, {2, 1}}, false)
	if got.Median != 2 || got.Low != 1 || got.High != 9 || got.Control != 1 || got.Verdict != measure.Pass {
		t.Errorf("judged %+v", got)
	}
}

// A busy machine is busy by turns, so that controls of above and below 1 make a median of about 1.
func TestNoiseIsWhatEachControlIsOff(t *testing.T) {
	t.Parallel()
	got := measure.Judge(measure.Row{Unit: "x", Goal: 2}, []measure.Sample{{9, 3}, {9, 0.25}, {9, 1}, {9, 2}, {9, 0.9}}, false)
	if got.Control != 1 || got.Noise != 2 || got.Verdict != measure.Noisy {
		t.Errorf("judged %+v", got)
	}
}

func TestWhatIsFarOffIsSoInNearlyAllPairsWithoutNoise(t *testing.T) {
	t.Parallel()
	atMost, atLeast := measure.Row{Unit: "x", Goal: 2}, measure.Row{Unit: "x", Goal: 2, AtLeast: true}
	for name, c := range map[string]struct {
		row     measure.Row
		samples []measure.Sample
		want    bool
	}{
		"all":                          {atMost, []measure.Sample{{5, 1}, {6, 1}, {9, 1}}, true},
		"all but one of five":          {atMost, []measure.Sample{{5, 1}, {6, 1}, {7, 1}, {8, 1}, {3, 1}}, true},
		"all but a noisy one":          {atMost, []measure.Sample{{5, 1}, {6, 1}, {3, 1.6}}, true},
		"all, larger is better":        {atLeast, []measure.Sample{{0.5, 1}, {0.6, 1}, {0.9, 1}}, true},
		"but one, larger is better":    {atLeast, []measure.Sample{{0.5, 1}, {0.6, 1}, {1.1, 1}}, false},
		"but two":                      {atMost, []measure.Sample{{5, 1}, {6, 1}, {7, 1}, {3, 1}, {3, 1}}, false},
		"all, and there is no control": {measure.Row{Unit: "ms", Goal: 2}, []measure.Sample{{5, 0}, {6, 0}}, true},
	} {
		if got := measure.Judge(c.row, c.samples, false); got.FarOff() != c.want {
			t.Errorf("%s: far off: %t, judged %+v", name, got.FarOff(), got)
		}
	}
}

func TestAQuickRunDoesNotJudgeWhatNeedsAMillionSessions(t *testing.T) {
	t.Parallel()
	got := measure.Judge(measure.Row{Unit: "B", Goal: 700, NeedsFull: true}, []measure.Sample{{Value: 900}}, true)
	if got.Verdict != measure.FullOnly || got.FarOff() {
		t.Errorf("judged %+v", got)
	}
}

func TestPairRunsBackwardsEveryOtherTurn(t *testing.T) {
	t.Parallel()
	for turn, order := range []string{"bsc", "csb"} {
		ran := ""
		arm := func(name string, value float64) measure.Arm {
			return func(context.Context) (float64, error) { ran += name; return value, nil }
		}
		got, err := measure.Pair(t.Context(), turn, arm("b", 2), arm("s", 3), arm("c", 4))
		if err != nil || ran != order || got != (measure.Sample{Value: 1, Control: 2}) {
			t.Errorf("turn %d ran %s and showed %+v, %v", turn, ran, got, err)
		}
	}
}

func TestAnExperimentThatFailsSaysSoInEachRow(t *testing.T) {
	t.Parallel()
	isClosed := false
	e := measure.Experiment{
		Rows: []measure.Row{{Name: "a", Goal: 1}, {Name: "b"}},
		Pair: func(_ context.Context, turn int) ([]measure.Sample, error) {
			if turn == 2 {
				return nil, errors.New("broken")
			}
			return []measure.Sample{{Value: 1}, {Value: 1}}, nil
		},
		Close: func() error { isClosed = true; return nil },
	}
	results, err := e.Run(t.Context(), measure.Effort{Pairs: 5}, func() {})
	if err != nil || !isClosed || len(results) != 2 {
		t.Fatalf("results %v, %v, closed: %t", results, err, isClosed)
	}
	for _, r := range results {
		if r.Verdict != measure.Failed || r.Error != "measure a: broken" {
			t.Errorf("row %s: %s, %q", r.Name, r.Verdict, r.Error)
		}
	}
}

func TestASlowExperimentEndsWithThreePairs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := measure.Experiment{
			Rows: []measure.Row{{Name: "a"}},
			Pair: func(ctx context.Context, _ int) ([]measure.Sample, error) {
				return []measure.Sample{{Value: 1}}, measure.Wait(ctx, time.Second)
			},
		}
		for enough, want := range map[time.Duration]int{time.Millisecond: 3, 4500 * time.Millisecond: 4, time.Minute: 9, 0: 9} {
			results, err := e.Run(t.Context(), measure.Effort{Pairs: 9, Enough: enough}, func() {})
			if err != nil || len(results[0].Samples) != want || results[0].CutShort != (want < 9) {
				t.Errorf("%s were enough: %d pairs, want %d, cut short: %t, %v", enough, len(results[0].Samples), want, results[0].CutShort, err)
			}
		}
	})
}

func TestTheFirstPairOnlyWarmsUp(t *testing.T) {
	t.Parallel()
	told := 0
	e := measure.Experiment{
		Rows: []measure.Row{{Name: "a"}},
		Pair: func(_ context.Context, turn int) ([]measure.Sample, error) {
			return []measure.Sample{{Value: float64(turn)}}, nil
		},
	}
	results, err := e.Run(t.Context(), measure.Effort{Pairs: 3}, func() { told++ })
	if err != nil || results[0].Low != 1 || len(results[0].Samples) != 3 || told != e.Turns(3) {
		t.Errorf("results %+v, %v, told %d times", results, err, told)
	}
}

func TestAStallCountsForEveryCallThatWasDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		latencies, err := measure.Load{
			Callers: 1, Rate: 100, For: time.Second,
			Do: func(_ context.Context, _, n int) error {
				if n == 50 {
					time.Sleep(400 * time.Millisecond)
				}
				return nil
			},
		}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if calls := latencies.Calls(); calls < 99 || calls > 101 {
			t.Errorf("%d calls, 100 were due", calls)
		}
		// 40 calls were due in the stall; counted from when they were begun, all but one would have taken no time.
		if late := latencies.Quantile(0.8); late < 190*time.Millisecond || late > 210*time.Millisecond {
			t.Errorf("a fifth of all calls took %s or longer, want about 200ms", late)
		}
		if half := latencies.Quantile(0.5); half > time.Millisecond {
			t.Errorf("half of all calls took %s or longer", half)
		}
	})
}
