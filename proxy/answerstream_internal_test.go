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
	queue  chan written  // what the upstream writes, in order
	hangUp func()        // ends that
	ended  chan struct{} // closed when all was read
}

func newAnswerTest(t *testing.T) *answerTest {
	t.Helper()
	manager, token := newSessionTest(t, cluster.DefaultConfig())
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
	a.queue = make(chan written, 1000)
	a.hangUp = sync.OnceFunc(func() { close(a.queue) })
	go func() {
		defer func() { _ = w.Close() }()
		for next := range a.queue {
			_, _ = io.WriteString(w, next.text)
			close(next.done)
		}
	}()
	context.AfterFunc(ctx, func() { _ = body.CloseWithError(ctx.Err()) })
	call := &upstreamCall{p: p, session: lease.Session(), upstream: p.upstreams["/mcp"]}
	a.stream = newAnswerStream(call, lease, mcp.Message{Kind: mcp.KindRequest, ID: "7", Method: "tools/call"}, cancel)
	go func() {
		defer close(a.ended)
		a.stream.run(ctx, body)
	}()
	t.Cleanup(func() {
		cancel(nil)
		a.ends()
	})
	return a
}

// newSessionTest is a manager with one active session.
func newSessionTest(t *testing.T, limits cluster.Config) (*cluster.Manager, cluster.Token) {
	t.Helper()
	embedded, err := redisstore.StartEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = embedded.Close() })
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
	return manager, token
}

// written is something that an upstream writes; done is closed when it has been taken.
type written struct {
	text string
	done chan struct{}
}

// writes has the upstream write an event, behind all others.
func (a *answerTest) writes(data string) (done <-chan struct{}) {
	next := written{"data: " + data + "\n\n", make(chan struct{})}
	a.queue <- next
	return next.done
}

// fills waits until the upstream has to wait for the client, and a little longer.
func (a *answerTest) fills() {
	a.t.Helper()
	late := time.After(10 * time.Second)
	for full := false; !full; full = !a.stream.hasRoom() {
		select {
		case <-a.ended:
			a.t.Fatal("the stream has ended")
		case <-late:
			a.t.Fatal("the upstream does not wait for the client")
		case <-time.After(time.Millisecond):
		}
	}
	<-time.After(100 * time.Millisecond)
}

// ends has the upstream end its answer, and waits for the end of the stream.
func (a *answerTest) ends() {
	a.t.Helper()
	a.hangUp()
	a.wait()
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
	const count = 20
	a := newAnswerTest(t)
	for n := range count {
		a.writes(notification(n, maxUnread/3))
	}
	a.fills()
	a.stream.mu.Lock()
	last, unread := a.stream.last, a.stream.unread
	a.stream.mu.Unlock()
	if last > 1+4 || unread > 2*maxUnread {
		t.Errorf("%d events, %d bytes were taken in although nobody takes them", last, unread)
	}
	got, _ := a.taken()
	for len(got) < count {
		<-a.stream.more()
		more, _ := a.taken()
		got = append(got, more...)
	}
	a.writes(answer7)
	a.ends()
	rest, over := a.taken()
	if got = append(got, rest...); !over || len(got) != count+1 || got[count] != answer7 {
		t.Errorf("the client got %d messages, over: %v", len(got), over)
	}
}

// However slow the client is: a request whose answer is cut is answered.
func TestASlowClientIsToldThatItsAnswerWasCut(t *testing.T) {
	t.Parallel()
	a := newAnswerTest(t)
	for n := range 5 {
		a.writes(notification(n, maxUnread))
	}
	a.fills()
	a.cancel(errDraining)
	a.ends()
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
	<-a.writes(notification(0, maxUnread+1))
	<-a.writes(answer7)
	a.fills()
	a.cancel(errDraining)
	a.ends()
	got, over := a.taken()
	if last := got[len(got)-1]; !over || !strings.Contains(last, `"may_have_run"`) {
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
		<-a.writes(notification(n, 100))
	}
	a.taken()
	<-a.writes(notification(first, maxUnread+1))
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
	a.ends()
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
			done := a.writes(notification(n, size))
			for got := 0; !leaves && got == 0; {
				<-a.stream.more()
				messages, _ := a.taken()
				got += len(messages)
			}
			<-done
		}
		a.stream.mu.Lock()
		held, bytes := len(a.stream.events), a.stream.unkept
		a.stream.mu.Unlock()
		if held > maxUnkept/size+2 || bytes > maxUnkept+2*size {
			t.Errorf("leaves: %v; %d events are held, %d bytes", leaves, held, bytes)
		}
		a.keeper.setAway(false)
		a.writes(answer7)
		a.ends()
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
		a.ends()
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
	a.ends()
	if got, over := a.taken(); len(got) != 1 || !over {
		t.Errorf("the client got %q, over: %v", got, over)
	}
	a.stream.leave(false)
	if got := a.keeper.kept(); got != "" {
		t.Errorf("stored: %s", got)
	}
}
