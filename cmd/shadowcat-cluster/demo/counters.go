package demo

import (
	"iter"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// minCounters is how many counters may gather before those of closed sessions are dropped.
const minCounters = 64

// counters holds one number for each open session of the example server. There are at most twice as many as there were
// open sessions when it last looked, and never fewer than minCounters before it looks.
type counters struct {
	sessions func() iter.Seq[*mcp.ServerSession] // those that are open

	mu     sync.Mutex
	values map[*mcp.ServerSession]int
	limit  int // at this many, look for closed sessions
}

func newCounters(sessions func() iter.Seq[*mcp.ServerSession]) *counters {
	return &counters{sessions: sessions, values: map[*mcp.ServerSession]int{}, limit: minCounters}
}

// add counts one more for session and returns its number.
func (c *counters) add(session *mcp.ServerSession) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.values[session]; !known && len(c.values) >= c.limit {
		c.dropClosed()
	}
	c.values[session]++
	return c.values[session]
}

// get returns session's number, 0 if it has not counted yet.
func (c *counters) get(session *mcp.ServerSession) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.values[session]
}

// dropClosed keeps the open sessions' numbers only. Looking again at double the size keeps the cost of an add constant
// on average.
func (c *counters) dropClosed() {
	open := make(map[*mcp.ServerSession]int)
	for session := range c.sessions() {
		if value, counted := c.values[session]; counted {
			open[session] = value
		}
	}
	c.values = open
	c.limit = max(minCounters, 2*len(open))
}
