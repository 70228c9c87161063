package storetest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var (
	principals   = []cluster.Principal{"", "ann", "bob"}
	incarnations = []string{"r1", "r2"}
	streams      = []string{"s", "t"}
	// long is a text that a store may have to keep elsewhere than a short one.
	long = strings.Repeat("long ", 20)
)

func (m *machine) number(name string, least, most int) int {
	return rapid.IntRange(least, most).Draw(m.t, name)
}

// rarely is true one time out of n.
func (m *machine) rarely(name string, n int) bool { return m.number(name, 0, n-1) == n-1 }

func (m *machine) millis(name string, least, most int) time.Duration {
	return time.Duration(m.number(name, least, most)) * time.Millisecond
}

func draw[T any](m *machine, name string, of ...T) T { return rapid.SampledFrom(of).Draw(m.t, name) }

// pick picks a session: mostly a live one, else one of the last few, which may be gone.
func (m *machine) pick() cluster.Token {
	some := m.tokens[max(len(m.tokens)-6, 0):]
	if m.number("live", 0, 3) > 0 {
		live := slices.DeleteFunc(slices.Clone(m.tokens), func(token cluster.Token) bool {
			s := m.model.sessions[token.ID]
			return s == nil || !s.Status.Live()
		})
		if len(live) > 0 {
			some = live
		}
	}
	if len(some) == 0 {
		m.t.Skip("no session yet")
	}
	return some[m.number("session", 0, len(some)-1)]
}

func (m *machine) newToken() cluster.Token {
	token, err := cluster.NewToken()
	if err != nil {
		m.t.Fatal(err)
	}
	return token
}

func (m *machine) create() {
	c := cluster.Creation{Token: m.newToken()}
	drawn := m.rarely("token drawn by the store", 3)
	switch {
	case drawn:
		c.Token = cluster.Token{}
	case m.rarely("repeated", 4):
		c.Token = m.pick()
		if m.model.sessions[c.Token.ID] == nil {
			m.t.Skip("purged: an id is made once")
		}
	}
	c.NewSession = cluster.NewSession{
		Upstream: draw(m, "upstream", "u", "u", "v"), Endpoint: draw(m, "endpoint", "", "http://e", "http://"+long),
		Principal: draw(m, "principal", principals...), ClientName: draw(m, "client", "", "c", long), ClientVersion: "1",
		Initialize: []byte(draw(m, "initialize", "", "{}")),
	}
	m.createAs(c, drawn)
}

func (m *machine) createAs(c cluster.Creation, drawn bool) bool {
	got, gotErr := m.store.Create(m.t.Context(), c)
	if drawn {
		if c.Token = got.Token; gotErr != nil {
			c.Token = m.newToken() // whichever it was
		}
	}
	_, known := m.model.sessions[c.Token.ID]
	want, wantErr := m.model.create(c, drawn)
	if wantErr != nil {
		got.Token = cluster.Token{} // means nothing
	}
	m.compare("create", got, want, gotErr, wantErr)
	if gotErr == nil && !known {
		m.tokens = append(m.tokens, c.Token)
	}
	return gotErr == nil
}

// start creates a session and activates it.
func (m *machine) start() {
	token := m.newToken()
	made := m.createAs(cluster.Creation{Token: token, NewSession: cluster.NewSession{
		Upstream: "u", Principal: draw(m, "principal", principals...),
	}}, false)
	if made {
		m.change(cluster.Change{ID: token.ID, ExpectedVersion: 1, Writer: "a"})
	}
}

func (m *machine) update() {
	id := m.pick().ID
	m.change(cluster.Change{
		ID: id, Writer: draw(m, "writer", "a", "b", "c"), ExpectedVersion: m.version(id),
		Endpoint: draw(m, "endpoint", "", "http://f", "http://"+long),
		Activation: cluster.Activation{
			UpstreamSession: draw(m, "upstream session", "", "x", long), Revision: draw(m, "revision", "", "2025-11-25"),
		},
	})
}

// version draws one that a session has, or has not.
func (m *machine) version(id cluster.ID) int64 {
	version := int64(m.number("version", 0, 4))
	if s := m.model.sessions[id]; s != nil && version == 0 {
		return s.Version
	}
	return version
}

func (m *machine) change(c cluster.Change) {
	got, gotErr := m.store.Update(m.t.Context(), c)
	want, wantErr := m.model.update(c)
	m.compare("update", got, want, gotErr, wantErr)
}

func (m *machine) lease() {
	token := m.pick()
	c := cluster.LeaseCall{ID: token.ID, Digest: token.Digest(), Upstream: "u", Need: m.number("need", 0, 3)}
	if s := m.model.sessions[token.ID]; s != nil {
		c.Upstream, c.Principal = s.Upstream, s.Principal
	}
	c.Want = c.Need + m.number("more", 0, 7)
	c.Pending = m.number("pending", 0, max(c.Need, 1))
	c.KnownVersion = m.version(token.ID)
	switch m.number("wrong", 0, 9) {
	case 9:
		c.Digest[0]++
	case 8:
		c.Upstream += "?"
	case 7:
		c.Principal += "x"
	}
	got, gotErr := m.store.Lease(m.t.Context(), c)
	want, wantErr := m.model.lease(c)
	m.compare("lease", got, want, gotErr, wantErr)
}

func (m *machine) report() {
	reports := make([]cluster.Report, m.number("reports", 1, 3))
	for i := range reports {
		r := cluster.Report{
			ID:           m.pick().ID,
			Idle:         m.millis("idle ms", -1, 3000),
			Requests:     m.number("requests", 0, 5),
			Unspent:      m.number("unspent", 0, 4),
			UnspentSince: m.model.now.Add(-m.millis("age ms", -10, 700)),
			Want:         m.number("want", 0, 4),
		}
		for range m.number("started", 0, 2) {
			r.Started = append(r.Started, cluster.PendingRequest{
				Key: draw(m, "key", "c:1", "c:2", "c:3"), Owner: draw(m, "owner", incarnations...), Age: m.millis("pending ms", 0, 2000),
			})
		}
		if m.rarely("finished", 3) {
			r.Finished = []string{draw(m, "key", "c:1", "c:2", "c:3")}
		}
		reports[i] = r
	}
	m.equal("report", m.store.Report(m.t.Context(), reports), m.model.report(reports))
}

func (m *machine) terminate() {
	id, status := m.pick().ID, draw(m, "status", cluster.StatusClosed, cluster.StatusTerminated, cluster.StatusFailed, cluster.StatusExpired)
	got, gotErr := m.store.Terminate(m.t.Context(), id, status)
	want, wantErr := m.model.terminate(id, status)
	m.compare("terminate", got, want, gotErr, wantErr)
}

func (m *machine) sweep() {
	got, gotErr := m.store.Sweep(m.t.Context(), sweep)
	got.Took, got.Slices, got.Away = 0, 0, nil // are nothing to compare
	want, wantErr := m.model.sweep()
	m.compare("sweep", got, want, gotErr, wantErr)
}

func (m *machine) prune() {
	id, dead := m.pick().ID, []string{draw(m, "dead", incarnations...), "r"}
	got, gotErr := m.store.Prune(m.t.Context(), id, dead)
	m.compare("prune", got, m.model.prune(id, dead), gotErr, nil)
}

func (m *machine) appendEvents() {
	a := cluster.EventAppend{ID: m.pick().ID, Stream: draw(m, "stream", streams...)}
	for range m.number("events", 1, 5) {
		a.Events = append(a.Events, []byte(strings.Repeat("e", draw(m, "size", 1, 2, 7, 12, 31))))
	}
	// Mostly what follows, else events that are stored already, all or some of them, or a hole before them.
	next, n := m.model.streams(a.ID)[a.Stream]+1, int64(len(a.Events))
	a.First = max(draw(m, "first", next, next, next, next-n, next-n, next-1, next+2), 1)
	_, gotErr := m.store.AppendEvents(m.t.Context(), a)
	m.compare("append events", 0, 0, gotErr, m.model.appendEvents(a))
}

func (m *machine) readEvents() {
	queries := make([]cluster.EventQuery, m.number("queries", 1, 3))
	for i := range queries {
		queries[i] = cluster.EventQuery{
			ID: m.pick().ID, Stream: draw(m, "stream", streams...), After: int64(m.number("after", 0, 8)), Limit: m.number("limit", 1, 3),
		}
	}
	m.equal("read events", m.store.ReadEvents(m.t.Context(), queries), m.model.readEvents(queries))
}

func (m *machine) appendFrames() {
	id, frames := m.pick().ID, make([]cluster.Frame, m.number("frames", 1, 3))
	for i := range frames {
		frames[i] = cluster.Frame{
			Age: m.millis("age ms", 0, 2000), Direction: draw(m, "direction", cluster.FromClient, cluster.FromUpstream),
			Method: draw(m, "method", "", "tools/call"), MessageID: draw(m, "id", "", "i:1"), Size: m.number("size", 0, 5000),
			Status: draw(m, "status", 0, 200), Latency: time.Duration(m.number("latency us", 0, 5000)) * time.Microsecond,
			Replica: "r1", Payload: []byte(strings.Repeat("p", draw(m, "payload", 0, 10, 200, 500))),
		}
	}
	gotErr := m.store.AppendFrames(m.t.Context(), id, frames)
	m.compare("append frames", 0, 0, gotErr, m.model.appendFrames(id, frames))
}

func (m *machine) readFrames() {
	q := cluster.FrameQuery{ID: m.pick().ID, After: int64(m.number("after", 0, 8)), Limit: m.number("limit", 1, 3)}
	got, gotErr := m.store.ReadFrames(m.t.Context(), q)
	want, wantErr := m.model.readFrames(q)
	m.compare("read frames", got, want, gotErr, wantErr)
}

// read asks for one session: what readers do most.
func (m *machine) read() {
	id := m.pick().ID
	got, gotErr := m.store.Get(m.t.Context(), id)
	want, wantErr := m.model.get(id)
	m.compare("get", got, want, gotErr, wantErr)
	ids := []cluster.ID{id, m.pick().ID}
	m.equal("check", m.store.Check(m.t.Context(), ids), m.model.check(ids))
}

// list pages through sessions under some conditions.
func (m *machine) list() {
	q := cluster.Query{
		Ended: m.rarely("ended", 3), Principal: draw(m, "principal", principals...), Limit: m.number("limit", 1, 2),
		IdleFor:   draw(m, "idle for", 0, 0, time.Millisecond, time.Second, 30*time.Second),
		OlderThan: draw(m, "older than", 0, 0, time.Millisecond, 2*time.Second, time.Minute),
	}
	if m.rarely("of one status", 2) {
		of := []cluster.Status{cluster.StatusInitializing, cluster.StatusActive, cluster.StatusExpired}
		if q.Ended {
			of = []cluster.Status{cluster.StatusClosed, cluster.StatusExpired, cluster.StatusEvicted}
		}
		q.Status = draw(m, "status", of...)
	}
	m.listAll(q)
}

// listAll compares all pages of a listing. A listing is not repeated when a reply is lost: it errs, or it is right.
func (m *machine) listAll(q cluster.Query) {
	var all []cluster.Session
	for {
		page, err := m.store.List(m.t.Context(), q)
		if m.model.lose > 0 && errors.Is(err, cluster.ErrStoreUnavailable) {
			return
		}
		m.compare("time of a page", page.Now, m.model.now, err, nil)
		if len(page.Sessions) > q.Limit {
			m.t.Fatalf("a page of %d sessions has %d", q.Limit, len(page.Sessions))
		}
		all = append(all, page.Sessions...)
		if page.Next == "" {
			break
		}
		q.Cursor = page.Next
	}
	m.equal("list", all, m.model.list(q))
}
