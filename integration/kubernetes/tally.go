package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// How a request ended. What is none of these is the reason of a refusal: an explicit answer that it did not run.
const (
	endedOK          = "ok"
	endedMayHaveRun  = "may_have_run" // an explicit answer that nobody can know
	endedEventsGone  = "events_gone"  // the same, of an answer that was a stream
	endedBroken      = "broken"       // its replica died before it said anything, and the balancer answered 502
	endedSessionGone = "session_gone" // an explicit 404: its session is no more
	endedFailed      = "failed"
)

// refusals are the reasons that a request may be refused for, here where no client asks for too much.
var refusals = []string{"store_unavailable", "upstream_unavailable"}

// tally is what the clients saw during one scenario. It is for use by several goroutines.
type tally struct {
	mu       sync.Mutex
	ended    map[string]int
	messages int           // that the server sent unasked
	missed   int           // of those, numbers that never came
	lost     int           // sessions
	slowest  time.Duration // of the answers
	details  []string      // of what was not answered, the first few
}

// maxDetails bounds what a scenario tells of requests that were not answered.
const maxDetails = 5

func newTally() *tally { return &tally{ended: make(map[string]int)} }

// request counts a request that has ended.
func (t *tally) request(how, detail string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended[how]++
	t.slowest = max(t.slowest, took)
	if how != endedOK && len(t.details) < maxDetails {
		t.details = append(t.details, how+": "+detail)
	}
}

// change changes the other counters.
func (t *tally) change(do func(*tally)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	do(t)
}

// refused is how many requests were told that they did not run.
func (t *tally) refused() int {
	n := 0
	for _, reason := range refusals {
		n += t.ended[reason]
	}
	return n
}

// unknown is how many requests were told that they may have run.
func (t *tally) unknown() int { return t.ended[endedMayHaveRun] + t.ended[endedEventsGone] }

func (t *tally) requests() int {
	n := 0
	for _, count := range t.ended {
		n += count
	}
	return n
}

// allowance says what a scenario may cost, beside nothing.
type allowance struct {
	refused, broken, lost bool
}

// result is what a scenario cost.
type result struct {
	scenario
	took  time.Duration
	tally *tally
}

// judge says what must not have been. It is for when all calls have ended.
func (r result) judge() error {
	t := r.tally
	var faults []string
	fault := func(count int, isAllowed bool, what string) {
		if count > 0 && !isAllowed {
			faults = append(faults, fmt.Sprintf("%d %s", count, what))
		}
	}
	fault(t.ended[endedFailed], false, "requests failed")
	fault(t.missed, r.allowed.lost, "messages never came")
	fault(t.refused(), r.allowed.refused, "requests were refused")
	fault(t.ended[endedBroken]+t.unknown(), r.allowed.broken, "requests have an unknown outcome")
	fault(t.ended[endedSessionGone]+t.lost, r.allowed.lost, "times a session was lost")
	if t.ended[endedOK] == 0 {
		faults = append(faults, "no request was answered")
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s\n  %s", r.name, strings.Join(faults, ", "), strings.Join(t.details, "\n  "))
}

// printResults writes the table of all scenarios.
func printResults(out io.Writer, results []result) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "scenario\ttook\trequests\tok\trefused\tmay have run\tbroken\tsession gone\tfailed\tmessages\tmissed\tsessions lost\tslowest answer\t")
	for _, r := range results {
		t := r.tally
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", r.name, r.took.Round(100*time.Millisecond), t.requests(), t.ended[endedOK],
			t.refused(), t.unknown(), t.ended[endedBroken], t.ended[endedSessionGone], t.ended[endedFailed], t.messages, t.missed, t.lost,
			t.slowest.Round(time.Millisecond))
	}
	_ = table.Flush() // what cannot be written to the terminal has no other place
}
