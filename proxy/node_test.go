package proxy_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// node is a replica with a way of its own to the store, and an end that tests choose.
type node struct {
	*replica

	proxy *proxy.Proxy
	gate  *gate
	log   *logBuffer
	kill  func() // it is gone at once, and tells nobody

	mu     sync.Mutex
	audits []cluster.Audit
}

func (n *node) Audited(a cluster.Audit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.audits = append(n.audits, a)
}

// recoveries counts the sessions that the replica says it has made anew.
func (n *node) recoveries() (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.audits {
		if a.Action == cluster.ActionRecovered {
			count++
		}
	}
	return count
}

// node starts one.
func (f *fleet) node(change ...func(*proxy.Config)) *node {
	f.t.Helper()
	n := &node{gate: newGate(f.t, strings.TrimPrefix(f.embedded.URL(), "redis://")), log: &logBuffer{}}
	store, err := redisstore.Open(n.gate.url(), redisstore.Options{Config: f.limits})
	if err != nil {
		f.t.Fatal(err)
	}
	manager, err := cluster.NewManager(store, f.limits, cluster.Options{Auditor: n})
	if err != nil {
		f.t.Fatal(err)
	}
	n.replica = &replica{t: f.t, manager: manager}
	cfg := proxy.Config{
		Upstreams: []proxy.Upstream{{URL: f.upstream}}, Observer: n.replica, FollowInterval: f.limits.ReportInterval,
		Logger: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	var sessions proxy.Sessions = manager
	if f.sessions != nil {
		sessions = f.sessions(manager)
	}
	if n.proxy, err = proxy.New(sessions, cfg); err != nil {
		f.t.Fatal(err)
	}
	n.server = httptest.NewUnstartedServer(n.proxy)
	n.server.Config = proxy.NewServer(n.proxy, proxy.ServerLimits{})
	n.server.Start()
	n.url = n.server.URL + "/mcp"

	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = manager.Run(ctx) })
	running.Go(func() { _ = n.proxy.RunStreams(ctx) })
	end := sync.OnceFunc(func() {
		n.server.CloseClientConnections()
		n.proxy.Close()
		n.server.Close()
		stop()
		running.Wait()
		_ = store.Close()
	})
	n.kill = func() {
		n.gate.shut()
		end()
		f.forget(n)
	}
	f.t.Cleanup(func() {
		if f.t.Failed() {
			f.t.Logf("log of %s:\n%s", manager.Incarnation(), n.log.String())
		}
		end()
	})
	// Of one that the store does not know yet nothing can be concluded from its silence.
	eventually(f.t, "the replica to be known", func() bool { return slices.Contains(f.alive(), manager.Incarnation()) })
	return n
}

// nodes starts two.
func (f *fleet) nodes(change ...func(*proxy.Config)) (a, b *node) {
	return f.node(change...), f.node(change...)
}

// direct is a store without a gate.
func (f *fleet) direct() *redisstore.Store {
	f.t.Helper()
	store, err := redisstore.Open(f.embedded.URL(), redisstore.Options{Config: f.limits})
	if err != nil {
		f.t.Fatal(err)
	}
	return store
}

func (f *fleet) alive() []string {
	f.t.Helper()
	store := f.direct()
	defer func() { _ = store.Close() }()
	all, err := store.Replicas(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return all
}

// listeners is how many listeners a session's own stream has had.
func (f *fleet) listeners(token string) int64 {
	f.t.Helper()
	return f.own(token).Listener
}

// own is what the store says of a session's own stream.
func (f *fleet) own(token string) cluster.StreamState {
	f.t.Helper()
	parsed, err := cluster.ParseToken(token)
	if err != nil {
		f.t.Fatal(err)
	}
	store := f.direct()
	defer func() { _ = store.Close() }()
	return store.StreamStates(f.t.Context(), []cluster.ID{parsed.ID})[0]
}

// forget lets the time pass after which a replica that gives no sign of life counts as dead.
func (f *fleet) forget(n *node) {
	f.t.Helper()
	store := f.direct()
	defer func() { _ = store.Close() }()
	if err := store.Leave(context.Background(), n.manager.Incarnation()); err != nil {
		f.t.Fatal(err)
	}
}

// empties makes the store forget everything, as a Redis does that keeps nothing and is started again.
func (f *fleet) empties() {
	f.t.Helper()
	client := f.redis()
	defer func() { _ = client.Close() }()
	if err := client.FlushAll(f.t.Context()).Err(); err != nil {
		f.t.Fatal(err)
	}
}

// redis is a way around the store.
func (f *fleet) redis() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(f.embedded.URL(), "redis://"), DisableIdentity: true})
}

// terminates ends a session as an operator does, whose command is no replica.
func (f *fleet) terminates(token string) {
	f.t.Helper()
	parsed, err := cluster.ParseToken(token)
	if err != nil {
		f.t.Fatal(err)
	}
	store := f.direct()
	defer func() { _ = store.Close() }()
	if _, err := store.Terminate(f.t.Context(), parsed.ID, cluster.StatusTerminated); err != nil {
		f.t.Fatal(err)
	}
}

// loses calls change, and takes back what that has changed of the keys that a session has, as a failover does that loses the last writes.
func (f *fleet) loses(token string, change func()) {
	f.t.Helper()
	parsed, err := cluster.ParseToken(token)
	if err != nil {
		f.t.Fatal(err)
	}
	client := f.redis()
	defer func() { _ = client.Close() }()
	keys := client.Keys(f.t.Context(), "*:"+parsed.ID.String()).Val()
	move := func(from, to string) {
		for _, key := range keys {
			if err := client.Do(f.t.Context(), "copy", key+from, key+to, "replace").Err(); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	move("", ":kept")
	change()
	move(":kept", "")
}

// gate is a way to a server that can be shut.
type gate struct {
	listener net.Listener
	target   string

	mu     sync.Mutex
	isShut bool
	conns  map[net.Conn]bool
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	return newGateAt(t, "127.0.0.1:0", target)
}

// newGateAt makes one at an address.
func newGateAt(t *testing.T, address, target string) *gate {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, target: target, conns: make(map[net.Conn]bool)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { g.pass(conn) })
		}
	})
	t.Cleanup(func() {
		g.remove()
		running.Wait()
	})
	return g
}

// remove shuts it for good: nothing listens there any more.
func (g *gate) remove() {
	_ = g.listener.Close()
	g.shut()
}

func (g *gate) address() string { return g.listener.Addr().String() }

func (g *gate) url() string { return "redis://" + g.address() }

func (g *gate) pass(conn net.Conn) {
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", g.target)
	if err != nil || !g.keep(conn, server) {
		_ = conn.Close()
		if err == nil {
			_ = server.Close()
		}
		return
	}
	var both sync.WaitGroup
	move := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_ = to.Close()
		_ = from.Close()
	}
	both.Go(func() { move(conn, server) })
	both.Go(func() { move(server, conn) })
	both.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, conn)
	delete(g.conns, server)
}

func (g *gate) keep(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		g.conns[c] = true
	}
	return !g.isShut
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = true
	for c := range g.conns {
		_ = c.Close()
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = false
}

// stream is a stream of events as a client reads it.
type stream struct {
	*opened

	t      *testing.T
	events *mcp.EventReader
	last   string // the id that it would resume with
}

// stream sends a request that must be answered by a stream.
func (r request) stream(t *testing.T) *stream {
	t.Helper()
	res := r.open(t)
	if kind := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || kind != "text/event-stream" {
		text, _ := io.ReadAll(res.Body)
		t.Fatalf("%s: %d %s, want a stream: %s", r.method, res.StatusCode, kind, text)
	}
	return &stream{opened: res, t: t, events: mcp.NewEventReader(res.Body, 64<<20)}
}

// next returns the next event. It fails the test when there is none.
func (s *stream) next() mcp.Event {
	s.t.Helper()
	e, err := s.events.Next()
	if err != nil {
		s.t.Fatalf("the stream ended: %v", err)
	}
	if e.ID != "" {
		s.last = e.ID
	}
	return e
}

// message returns the next event that has data.
func (s *stream) message() string {
	s.t.Helper()
	for {
		if e := s.next(); len(e.Data) > 0 {
			return string(e.Data)
		}
	}
}

// wants reads messages, and compares them.
func (s *stream) wants(messages ...string) {
	s.t.Helper()
	for i, want := range messages {
		if got := s.message(); got != want {
			s.t.Fatalf("message %d of %d is %.200s, want %s", i, len(messages), got, want)
		}
	}
}

// rest returns the data of all messages up to the stream's end, which must be a proper one.
func (s *stream) rest() (messages []string) {
	s.t.Helper()
	for {
		e, err := s.events.Next()
		if errors.Is(err, io.EOF) {
			return messages
		}
		if err != nil {
			s.t.Fatalf("after %d messages the stream broke: %v", len(messages), err)
		}
		if e.ID != "" {
			s.last = e.ID
		}
		if len(e.Data) > 0 {
			messages = append(messages, string(e.Data))
		}
	}
}

// wantsRest compares all that follows, and wants the stream to end then.
func (s *stream) wantsRest(want ...string) {
	s.t.Helper()
	if got := s.rest(); !slices.Equal(got, want) {
		s.t.Fatalf("the rest is %.300q (%d), want %.300q (%d)", got, len(got), want, len(want))
	}
}

// drop breaks the connection.
func (s *stream) drop() { _ = s.Body.Close() }

// resume is the GET by which a client goes on with a stream at a replica.
func (s *stream) resume(r *replica, token string) request {
	return get(r.url, token).with("Last-Event-ID", s.last)
}

const callBody = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"long"}}`

// progress is a message of an answer, result its last one.
func progress(n int) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":%d}}`, n)
}

const result = `{"jsonrpc":"2.0","id":7,"result":{"content":[]}}`

func progresses(from, to int) (all []string) {
	for i := from; i <= to; i++ {
		all = append(all, progress(i))
	}
	return all
}

// streaming is an upstream that answers tools/call with the messages that it is given, up to and with a result. An empty text breaks
// the connection.
func streaming(t *testing.T, messages <-chan string) *upstream {
	t.Helper()
	return newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return false
		}
		answerWith(w, r, messages)
		return true
	})
}

// answerWith answers with messages, up to and with a result.
func answerWith(w http.ResponseWriter, r *http.Request, messages <-chan string) {
	w.Header().Set("Content-Type", "text/event-stream")
	flush(w)
	for {
		select {
		case text := <-messages:
			if text == "" {
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, "data: "+text+"\n\n")
			flush(w)
			if strings.Contains(text, `"result"`) {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// talker is an MCP server with sessions, each of which has a stream of its own.
type talker struct {
	*upstream

	mu        sync.Mutex
	withIDs   bool // its events have ids, by which it replays
	startsAt  int  // where who comes without an id begins: startsBehind, startsAnew or startsNow
	getStatus int  // the answer to GET, when it is not 0
	postFails int  // the answer to POST of a session, when it is not 0
	initAs    func(w http.ResponseWriter, got recorded) bool
	next      handler // what its sessions do with a POST; nil: the hand-written upstream's answer
	revision  string  // that it speaks; empty: 2025-11-25
	made      []*talk
	heard     []string // methods of what its latest session was told, in order
}

// talk is one session of a talker.
type talk struct {
	id      string
	said    []string
	sent    int
	changed chan struct{} // closed and replaced when anything does
	readers int
	most    int // readers at the same time
	opened  int // readers ever
	lost    bool
	cut     bool // its reader's connection is to break
}

func newTalker(t *testing.T, change ...func(*talker)) *talker {
	t.Helper()
	k := &talker{}
	for _, c := range change {
		c(k)
	}
	k.upstream = newUpstream(t, k.handle)
	return k
}

func withIDs(k *talker) { k.withIDs = true }

// Where a stream of a talker begins that is asked for without an id.
const (
	startsBehind = iota // what it has sent before
	startsAnew          // with everything, as servers of the official Go SDK do that keep events
	startsNow           // with what it says from then on, as those of the TypeScript SDK do
)

func startsAnewWithIDs(k *talker) { k.withIDs, k.startsAt = true, startsAnew }
func startsNowWithIDs(k *talker)  { k.withIDs, k.startsAt = true, startsNow }

func (k *talker) handle(w http.ResponseWriter, r *http.Request, got recorded) bool {
	if got.msg.Initializes {
		return k.initialize(w, got)
	}
	k.mu.Lock()
	s := k.session(got.header.Get("Mcp-Session-Id"))
	if s == nil {
		k.mu.Unlock()
		http.Error(w, "no such session", http.StatusNotFound)
		return true
	}
	switch r.Method {
	case http.MethodGet:
		k.listen(w, r, s) // unlocks
		return true
	case http.MethodDelete:
		s.lost = true
		s.wake()
	default:
		k.heard = append(k.heard, s.id+" "+got.msg.Method)
		if k.postFails != 0 {
			w.WriteHeader(k.postFails)
			k.mu.Unlock()
			return true
		}
	}
	next := k.next
	k.mu.Unlock()
	return next != nil && next(w, r, got)
}

func (k *talker) initialize(w http.ResponseWriter, got recorded) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.initAs != nil && k.initAs(w, got) {
		return true
	}
	s := &talk{id: "upstream-secret-" + strconv.Itoa(len(k.made)+1), changed: make(chan struct{})}
	k.made = append(k.made, s)
	k.heard = append(k.heard, s.id+" "+got.msg.Method)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Mcp-Session-Id", s.id)
	answer := strings.Replace(initialized, "2025-11-25", cmp.Or(k.revision, "2025-11-25"), 1)
	_, _ = io.WriteString(w, strings.Replace(answer, `"init"`, string(got.msg.ID), 1))
	return true
}

// session returns a session that is not lost. The caller holds k.mu.
func (k *talker) session(id string) *talk {
	for _, s := range k.made {
		if s.id == id && !s.lost {
			return s
		}
	}
	return nil
}

func (s *talk) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// listen serves a GET. The caller holds k.mu, which listen releases.
func (k *talker) listen(w http.ResponseWriter, r *http.Request, s *talk) {
	defer k.mu.Unlock()
	status := k.getStatus
	if s.readers > 0 {
		status = http.StatusConflict
	}
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	switch last, err := strconv.Atoi(r.Header.Get("Last-Event-ID")); {
	case err == nil:
		s.sent = last
	case k.startsAt == startsAnew:
		s.sent = 0
	case k.startsAt == startsNow:
		s.sent = len(s.said)
	}
	s.readers++
	s.opened++
	s.most = max(s.most, s.readers)
	s.cut = false
	defer func() { s.readers-- }()
	w.Header().Set("Content-Type", "text/event-stream")
	flush(w)
	for !s.lost && !s.cut {
		if s.sent < len(s.said) {
			id := ""
			if k.withIDs {
				id = "id: " + strconv.Itoa(s.sent+1) + "\n"
			}
			_, _ = io.WriteString(w, id+"data: "+s.said[s.sent]+"\n\n")
			s.sent++
			flush(w)
			continue
		}
		changed := s.changed
		k.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		k.mu.Lock()
		if r.Context().Err() != nil {
			return
		}
	}
}

// address is where it listens.
func (k *talker) address() string {
	return strings.TrimSuffix(strings.TrimPrefix(k.url, "http://"), "/endpoint")
}

// latest is the session that was made last.
func (k *talker) latest() *talk { return k.made[len(k.made)-1] }

// say has the latest session say something of its own accord.
func (k *talker) say(messages ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.latest()
	s.said = append(s.said, messages...)
	s.wake()
}

// lose makes the server forget its sessions, as a restart does.
func (k *talker) lose() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.made {
		s.lost = true
		s.wake()
	}
}

// returnFirst ends what lose did to the first session, which is the latest one from then on.
func (k *talker) returnFirst() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.made[0].lost = false
	k.made = append(k.made[1:], k.made[0])
}

// forget is lose without a word to those who listen: their connections stand.
func (k *talker) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.made {
		s.id += " forgotten"
	}
}

// hangUp ends the stream of the latest session, which stays.
func (k *talker) hangUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.latest().cut = true
	k.latest().wake()
}

// readers tells how many read the latest session's stream: now, at most at the same time, ever.
func (k *talker) readers() (now, most, ever int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.latest()
	return s.readers, s.most, s.opened
}

// sessions is how many there were.
func (k *talker) sessions() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.made)
}

// news is a message of a session's own stream.
func news(n int) string { return fmt.Sprintf(`{"jsonrpc":"2.0","method":"news","params":{"n":%d}}`, n) }

func newses(from, to int) (all []string) {
	for i := from; i <= to; i++ {
		all = append(all, news(i))
	}
	return all
}
