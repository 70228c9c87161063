package integration_test

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// How a request ended.
const (
	endedOK      = "ok"
	endedMayHave = "may_have_run" // explicitly: nobody can know
	endedBroken  = "broken"       // the balancer had sent it to a replica that died before it said anything
	endedFailed  = "failed"       // in a way that it must not
)

// unsentReasons are those of refusals before anything was sent: the request did not run.
var unsentReasons = []string{"store_unavailable", "upstream_unavailable", "rate_limited", "too_many_pending"}

// chaosTally is what all clients of a test of chaos have seen. It is for use by several goroutines.
type chaosTally struct {
	mu      sync.Mutex
	rows    map[string]*chaosRow // by kind of client
	effects map[string]string    // how the calls of the tool effect ended, by nonce
	sources map[string]string    // which client was sent the messages of a session of the upstream
	faults  []string             // what must not be
	events  map[string]int       // faults that were made, and what became of them

	// isOrderly says that nothing dies: what is not refused is answered.
	isOrderly bool
}

// chaosRow is what the clients of one kind have seen.
type chaosRow struct {
	clients, requests int
	ended             map[string]int // by how: endedOK and so on, or the reason of a refusal
	messages          int            // that the server sent unasked, or on the way to an answer
	resumed           int            // streams that were taken up again elsewhere
	gone              int            // streams that were told to be gone
	lost              int            // sessions that could not be used any more
}

func newChaosTally() *chaosTally {
	return &chaosTally{
		rows: make(map[string]*chaosRow), effects: make(map[string]string), sources: make(map[string]string), events: make(map[string]int),
	}
}

// of returns the row of a kind of clients. The caller holds c.mu.
func (c *chaosTally) of(kind string) *chaosRow {
	if c.rows[kind] == nil {
		c.rows[kind] = &chaosRow{ended: make(map[string]int)}
	}
	return c.rows[kind]
}

func (c *chaosTally) count(kind string, change func(*chaosRow)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.of(kind))
}

// event counts a fault that was made.
func (c *chaosTally) event(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events[what]++
}

// fault notes what must not be.
func (c *chaosTally) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// chaosCall is a call that has ended.
type chaosCall struct {
	kind, client, tool, nonce string
	ended                     string // how, or the reason of a refusal
	detail                    string // of a failure
	progress                  []chaosProgress
}

// chaosProgress is one notification on the way to an answer.
type chaosProgress struct {
	nonce  string
	number int
}

// call takes in a call that has ended.
func (c *chaosTally) call(e chaosCall) {
	if e.ended != endedOK && e.ended != endedMayHave && e.ended != endedBroken && e.ended != endedFailed &&
		e.ended != "events_gone" && !slices.Contains(unsentReasons, e.ended) {
		e.detail, e.ended = "reason "+e.ended+": "+e.detail, endedFailed
	}
	c.mu.Lock()
	row := c.of(e.kind)
	row.requests++
	row.messages += len(e.progress)
	row.ended[e.ended]++
	if e.tool == "effect" {
		c.effects[e.nonce] = e.ended
	}
	c.mu.Unlock()
	if c.isOrderly && e.ended != endedOK && !slices.Contains(unsentReasons, e.ended) {
		c.fault("%s: %s %s was lost, after %v: %s %s", e.client, e.tool, e.nonce, e.progress, e.ended, e.detail)
	}
	if e.ended == endedFailed {
		c.fault("%s: %s %s failed: %s", e.client, e.tool, e.nonce, e.detail)
	}
	c.checkProgress(e)
}

// checkProgress checks that the messages of a call are its own, in order, and all there when the answer is.
func (c *chaosTally) checkProgress(e chaosCall) {
	for i, p := range e.progress {
		if p.nonce != e.nonce || p.number != i+1 {
			c.fault("%s: progress of %s is %v, want it in order", e.client, e.nonce, e.progress)
			return
		}
	}
	if e.tool == "count" && e.ended == endedOK && len(e.progress) != chaosCount {
		c.fault("%s: %s was answered after %d of %d messages", e.client, e.nonce, len(e.progress), chaosCount)
	}
}

// belongs checks that the messages of an upstream session go to one client.
func (c *chaosTally) belongs(client, source string) {
	c.mu.Lock()
	other := cmp.Or(c.sources[source], client)
	c.sources[source] = other
	c.mu.Unlock()
	if other != client {
		c.fault("%s was sent messages of the session %s, which is that of %s", client, source, other)
	}
}

// checkEffects compares what clients were told with what has happened.
func (c *chaosTally) checkEffects(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	ran := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		ran[strings.TrimSpace(line)]++
	}
	c.mu.Lock()
	effects := maps.Clone(c.effects)
	c.mu.Unlock()
	for nonce, n := range ran {
		if _, known := effects[nonce]; n > 1 || !known {
			c.fault("effect %s ran %d times, a client knows of it: %t", nonce, n, known)
		}
	}
	for nonce, ended := range effects {
		switch n := ran[nonce]; {
		case ended == endedOK && n == 0:
			c.fault("effect %s was answered and has not run", nonce)
		case slices.Contains(unsentReasons, ended) && n > 0:
			c.fault("effect %s was refused with %s and has run", nonce, ended)
		}
	}
	return nil
}

// print writes the tally as a table.
func (c *chaosTally) print(to io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	endings := make(map[string]bool)
	for _, row := range c.rows {
		for how := range row.ended {
			endings[how] = true
		}
	}
	for _, always := range []string{endedOK, endedMayHave, endedBroken, endedFailed} {
		endings[always] = true
	}
	kinds := slices.Sorted(maps.Keys(c.rows))
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(name string, value func(*chaosRow) int) {
		_, _ = fmt.Fprintf(table, "%s\t", name)
		all := 0
		for _, kind := range kinds {
			n := value(c.rows[kind])
			all += n
			_, _ = fmt.Fprintf(table, "%d\t", n)
		}
		_, _ = fmt.Fprintf(table, "%d\t\n", all)
	}
	_, _ = fmt.Fprintf(table, "\t%s\tall\t\n", strings.Join(kinds, "\t"))
	line("clients", func(r *chaosRow) int { return r.clients })
	line("requests", func(r *chaosRow) int { return r.requests })
	for _, how := range slices.Sorted(maps.Keys(endings)) {
		line("  "+how, func(r *chaosRow) int { return r.ended[how] })
	}
	line("messages of the server", func(r *chaosRow) int { return r.messages })
	line("streams resumed", func(r *chaosRow) int { return r.resumed })
	line("streams gone", func(r *chaosRow) int { return r.gone })
	line("sessions lost", func(r *chaosRow) int { return r.lost })
	_ = table.Flush()
	for _, what := range slices.Sorted(maps.Keys(c.events)) {
		_, _ = fmt.Fprintf(to, "%s: %d\n", what, c.events[what])
	}
}

// verdict prints the tally and fails the test for everything that must not be.
func (c *chaosTally) verdict(t *testing.T) {
	t.Helper()
	var table strings.Builder
	c.print(&table)
	t.Logf("what the clients saw:\n%s", table.String())
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, row := range c.rows {
		if row.lost > 0 || row.ended[endedOK] == 0 {
			t.Errorf("%s: %d sessions were lost, %d requests succeeded", kind, row.lost, row.ended[endedOK])
		}
	}
	const most = 20
	for i, fault := range c.faults {
		if i == most {
			t.Errorf("and %d more", len(c.faults)-most)
			break
		}
		t.Error(fault)
	}
}

// tickCheck checks what one client is sent unasked.
type tickCheck struct {
	tally        *chaosTally
	kind, client string
	complete     bool // nothing may be missing: the upstream keeps what it could not send

	mu      sync.Mutex
	last    map[string]int // by source
	current string
	seen    int
	fresh   bool // something may be missing before the next one
}

func newTickCheck(tally *chaosTally, kind, client string, complete bool) *tickCheck {
	return &tickCheck{tally: tally, kind: kind, client: client, complete: complete, last: make(map[string]int), fresh: true}
}

// tick takes in a message.
func (c *tickCheck) tick(source string, number int) {
	c.tally.count(c.kind, func(r *chaosRow) { r.messages++ })
	c.tally.belongs(c.client, source)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen++
	last, known := c.last[source]
	switch {
	case known && number <= last:
		c.tally.fault("%s: message %d of %s came after %d of it", c.client, number, source, last)
	case known && source != c.current:
		c.tally.fault("%s: message %d of %s came after messages of the later session %s", c.client, number, source, c.current)
	case c.complete && !c.fresh && number != last+1:
		c.tally.fault("%s: message %d of %s came after %d of it: messages are missing", c.client, number, source, last)
	}
	c.last[source], c.current, c.fresh = number, source, false
}

// gap says that the client was told that messages are missing.
func (c *tickCheck) gap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = true
}

// count is how many messages have come.
func (c *tickCheck) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}
