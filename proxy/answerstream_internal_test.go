package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// keeper is a manager that stores events as a test wants.
type keeper struct {
	*cluster.Manager

	held   chan struct{} // while it is not nil, storing waits until it is closed
	asked  signal        // something is to be stored
	mu     sync.Mutex
	away   bool
	events [][]byte // what was stored, nil where there is a hole
}

func (k *keeper) Append(_ context.Context, a cluster.EventAppend) (cluster.Appended, error) {
	k.asked.wake()
	if k.held != nil {
		<-k.held
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return cluster.Appended{}, cluster.ErrStoreUnavailable
	}
	for i, text := range a.Events {
		for at := int(a.First) + i; len(k.events) < at; {
			k.events = append(k.events, nil)
		}
		k.events[int(a.First)+i-1] = text
	}
	return cluster.Appended{}, nil
}

func (k *keeper) setAway(is bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = is
}

// kept are the kinds of what was stored, '-' for a hole.
func (k *keeper) kept() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var kinds strings.Builder
	for _, text := range k.events {
		if text == nil {
			kinds.WriteByte('-')
			continue
		}
		kinds.WriteByte(text[0])
	}
	return kinds.String()
}

// answerTest is an answer that is a stream, without its connections.
type answerTest struct {
	t      *testing.T
	keeper *keeper
	stream *answerStream
	cancel context.CancelCauseFunc
	w      *io.PipeWriter // what the upstream writes
	ended  chan struct{}  // closed when all was read
}

func newAnswerTest(t *testing.T) *answerTest {
	t.Helper()
	embedded, err := redisstore.StartEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = embedded.Close() })
	limits := cluster.DefaultConfig()
	limits.StoreTimeout = 5 * time.Second
	store, err := redisstore.Open(embedded.URL(), redisstore.Options{Config: limits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	manager, err := cluster.NewManager(store, limits, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	session, token, err := manager.Create(t.Context(), cluster.NewSession{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = manager.Activate(t.Context(), session, cluster.Activation{UpstreamSession: "u", Revision: "2025-11-25"}); err != nil {
		t.Fatal(err)
	}
	lease, err := manager.Lease(t.Context(), token, cluster.Use{PendingKey: "c:7"})
	if err != nil {
		t.Fatal(err)
	}
	a := &answerTest{t: t, keeper: &keeper{Manager: manager, asked: newSignal()}, ended: make(chan struct{})}
	p, err := New(a.keeper, Config{Upstreams: []Upstream{{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:9"}}}, KeepAfter: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	ctx, cancel := context.WithCancelCause(t.Context())
	a.cancel = cancel
	body, w := io.Pipe()
	a.w = w
	context.AfterFunc(ctx, func() { _ = body.CloseWithError(ctx.Err()) })
	call := &upstreamCall{p: p, session: lease.Session(), upstream: p.upstreams["/mcp"]}
	a.stream = newAnswerStream(call, lease, mcp.Message{Kind: mcp.KindRequest, ID: "7", Method: "tools/call"}, cancel)
	go func() {
		defer close(a.ended)
		a.stream.run(ctx, body)
	}()
	t.Cleanup(func() {
		cancel(nil)
		a.wait()
	})
	return a
}

// writes has the upstream write an event of some bytes. It reports whether that was taken in a moment.
func (a *answerTest) writes(data string) bool {
	a.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.WriteString(a.w, "data: "+data+"\n\n")
	}()
	select {
	case <-done:
		return true
	case <-time.After(300 * time.Millisecond):
		return false
	}
}

func (a *answerTest) wait() {
	a.t.Helper()
	select {
	case <-a.ended:
	case <-time.After(10 * time.Second):
		a.t.Fatal("the answer does not end")
	}
}

// taken is the data of what a client takes now, and whether the stream has ended.
func (a *answerTest) taken() (messages []string, over bool) {
	a.t.Helper()
	text, err := a.stream.take(nil)
	events := mcp.NewEventReader(strings.NewReader(string(text)), 64<<20)
	for {
		e, broken := events.Next()
		if broken != nil {
			return messages, errors.Is(err, io.EOF)
		}
		if len(e.Data) > 0 {
			messages = append(messages, string(e.Data))
		}
	}
}

const answer7 = `{"jsonrpc":"2.0","id":7,"result":{}}`

func notification(n, size int) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","method":"m","params":[%d,%q]}`, n, strings.Repeat("x", size))
}

// An upstream waits for its client, and what it holds back is not lost.
func TestAnAnswersUpstreamWaitsForItsClient(t *testing.T) {
	t.Parallel()
	a := newAnswerTest(t)
	n := 0
	for n < 20 && a.writes(notification(n, maxUnread/3)) {
		n++
	}
	if n < 3 || n > 6 {
		t.Errorf("the upstream wrote %d events of a third of maxUnread that nobody took", n)
	}
	n++ // the last one was begun
	got, _ := a.taken()
	for len(got) < n {
		<-a.stream.more()
		more, _ := a.taken()
		got = append(got, more...)
	}
	if !a.writes(answer7) {
		t.Error("the upstream still waits")
	}
	_ = a.w.Close()
	a.wait()
	rest, over := a.taken()
	if got = append(got, rest...); !over || len(got) != n+1 || got[n] != answer7 {
		t.Errorf("the client got %d messages, over: %v", len(got), over)
	}
}

// However slow the client is: a request whose answer is cut is answered.
func TestASlowClientIsToldThatItsAnswerWasCut(t *testing.T) {
	t.Parallel()
	a := newAnswerTest(t)
	for n := 0; n < 20 && a.writes(notification(n, maxUnread)); n++ {
		t.Logf("%d were taken", n+1)
	}
	a.cancel(errDraining)
	a.wait()
	got, over := a.taken()
	if !over || len(got) == 0 || !strings.Contains(got[len(got)-1], `"may_have_run"`) {
		t.Errorf("the client got %d messages, over: %v, the last %.200s", len(got), over, got[max(0, len(got)-1)])
	}
	a.stream.leave(true)
}

// The response itself may be what the client is too slow for.
func TestASlowClientIsToldThatItsResponseWasCut(t *testing.T) {
	t.Parallel()
	a := newAnswerTest(t)
	for n := range 2 {
		a.writes(notification(n, maxUnread))
	}
	go func() { _, _ = io.WriteString(a.w, "data: "+answer7+"\n\n") }()
	a.cancel(errDraining)
	a.wait()
	got, over := a.taken()
	if last := got[len(got)-1]; !over || !strings.Contains(last, `"may_have_run"`) && last != answer7 {
		t.Errorf("the client got %d messages, over: %v, the last %.200s", len(got), over, last)
	}
	a.stream.leave(true)
}

// While the store is there nothing of a stream is given up, however slow it is, however large events are, and however much waits.
func TestAStreamThatIsStoredHasNoHoles(t *testing.T) {
	t.Parallel()
	a := newAnswerTest(t)
	a.keeper.held = make(chan struct{})
	const first = keepBatch + 20 // more than is stored at once
	for n := range first {
		a.writes(notification(n, 100))
	}
	a.taken()
	a.writes(notification(first, maxUnread+1))
	a.writes(notification(first+1, maxUnkept)) // waits for room
	go a.stream.leave(true)
	<-a.keeper.asked
	for n := int64(0); n < 1+first+2; { // until it is taken in
		a.stream.mu.Lock()
		n = a.stream.last
		a.stream.mu.Unlock()
	}
	close(a.keeper.held)
	a.writes(notification(first+2, maxUnkept))
	a.writes(answer7)
	_ = a.w.Close()
	a.wait()
	if got := a.keeper.kept(); got != "b"+strings.Repeat("m", first+4)+"e" {
		t.Errorf("stored: %s", got)
	}
}

// While the store is away a long stream does not fill the memory. Whoever resumes it then is told of the hole.
func TestAStreamThatCannotBeStoredIsBounded(t *testing.T) {
	t.Parallel()
	for _, leaves := range []bool{false, true} {
		a := newAnswerTest(t)
		a.keeper.setAway(true)
		a.stream.keep()
		if leaves {
			a.stream.leave(true)
		}
		const size = 64 << 10
		for n := range 40 {
			if !a.writes(notification(n, size)) {
				t.Fatalf("event %d waits", n)
			}
			for got := 0; !leaves && got == 0; {
				<-a.stream.more()
				messages, _ := a.taken()
				got += len(messages)
			}
		}
		a.stream.mu.Lock()
		held, bytes := len(a.stream.events), a.stream.unkept
		a.stream.mu.Unlock()
		if held > maxUnkept/size+2 || bytes > maxUnkept+2*size {
			t.Errorf("leaves: %v; %d events are held, %d bytes", leaves, held, bytes)
		}
		a.keeper.setAway(false)
		a.writes(answer7)
		_ = a.w.Close()
		a.wait()
		if !leaves {
			a.taken()
			a.stream.leave(true)
		}
		if got := a.keeper.kept(); !strings.HasPrefix(got, "-") || !strings.HasSuffix(got, "mmme") {
			t.Errorf("leaves: %v; stored: %s", leaves, got)
		}
	}
}

// The end of a stream is stored whenever it turns out that it is needed.
func TestTheEndOfAStreamIsStored(t *testing.T) {
	t.Parallel()
	for name, needed := range map[string]func(*answerStream){
		"the client leaves":          func(s *answerStream) { s.leave(true) },
		"drained, the client leaves": func(s *answerStream) { s.keep(); s.leave(true) },
		"the client leaves, drained": func(s *answerStream) { s.leave(true); s.keep() },
	} {
		a := newAnswerTest(t)
		a.writes(notification(1, 10))
		a.writes(answer7)
		_ = a.w.Close()
		a.wait()
		needed(a.stream)
		if got := a.keeper.kept(); got != "bmme" {
			t.Errorf("%s: stored: %s", name, got)
		}
	}
}

// Of what its client has got to the end nothing is stored.
func TestAnAnswerThatIsCompleteIsNotStored(t *testing.T) {
	t.Parallel()
	a := newAnswerTest(t)
	a.writes(answer7)
	_ = a.w.Close()
	a.wait()
	if got, over := a.taken(); len(got) != 1 || !over {
		t.Errorf("the client got %q, over: %v", got, over)
	}
	a.stream.leave(false)
	if got := a.keeper.kept(); got != "" {
		t.Errorf("stored: %s", got)
	}
}
