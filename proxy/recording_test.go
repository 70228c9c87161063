package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// recording starts a replica that records, and returns what ends the recording and reads it.
func (f *fleet) recording(mode record.Mode, change ...func(*proxy.Config)) (r *replica, read func(token string) []cluster.Frame) {
	f.t.Helper()
	store, err := redisstore.Open(f.embedded.URL(), redisstore.Options{Config: f.limits})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = store.Close() })
	rules, err := record.ParseRules([]string{"**.password"})
	if err != nil {
		f.t.Fatal(err)
	}
	headers, err := record.ParseHeaders([]string{"X-Pin"})
	if err != nil {
		f.t.Fatal(err)
	}
	recorder := record.New(record.Config{Store: store, Mode: mode, Redact: rules, RedactHeaders: headers, Replica: "recorder"})
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = recorder.Run(ctx) })
	end := func() { cancel(); running.Wait() }
	f.t.Cleanup(end)
	r = f.replica(append(change, func(c *proxy.Config) { c.Recorder = recorder })...)
	return r, func(token string) []cluster.Frame {
		f.t.Helper()
		end()
		id, _, _ := strings.Cut(token, ".")
		parsed, err := cluster.ParseID(id)
		if err != nil {
			f.t.Fatal(err)
		}
		page, err := store.ReadFrames(f.t.Context(), cluster.FrameQuery{ID: parsed, Limit: 1000})
		if err != nil {
			f.t.Fatal(err)
		}
		return page.Frames
	}
}

// inShort writes each frame as its direction, method, id, size, status and payload, and checks what cannot be foretold.
func inShort(t *testing.T, frames []cluster.Frame) (lines []string) {
	t.Helper()
	for i, f := range frames {
		if f.Number != int64(i)+1 || f.At.IsZero() || f.Replica != "recorder" {
			t.Errorf("frame %d: %+v", i, f)
		}
		if (f.Latency > 0) != (f.Status > 0) || f.Latency > patience {
			t.Errorf("frame %d has status %d and a latency of %v", i, f.Status, f.Latency)
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%s %s %s %d %d %s", f.Direction, f.Method, f.MessageID, f.Size, f.Status, f.Payload), " "))
	}
	return lines
}

// clean is a line of inShort of a message that is recorded as it is.
func clean(from cluster.Direction, method, id, text string, status int) string {
	return fmt.Sprintf("%s %s %s %d %d %s", from, method, id, len(text), status, text)
}

func wantFrames(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

const (
	secretCall = `{"jsonrpc":"2.0","id":"c1","method":"tools/call","params":{"name":"x","arguments":{"password":"hunter22"}}}`
	cleanCall  = `{"jsonrpc":"2.0","id":"c1","method":"tools/call","params":{"name":"x","arguments":{"password":"[redacted]"}}}`
)

// streamsAnswers is an upstream that answers tools/call by a stream: progress, a question, the answer.
func streamsAnswers(w http.ResponseWriter, _ *http.Request, got recorded) bool {
	if got.msg.Method != "tools/call" {
		return false
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, message := range streamedMessages {
		_, _ = io.WriteString(w, "data: "+message+"\n\n")
	}
	return true
}

var streamedMessages = []string{
	`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"password":"of the server's"}}`,
	`{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}`,
	`{"jsonrpc":"2.0","id":"c1","result":{"content":[{"type":"text","text":"` + upstreamSession + `"}]}}`,
}

func TestAConversationIsRecorded(t *testing.T) {
	t.Parallel()
	a, read := newFleet(t, newUpstream(t, streamsAnswers).url).recording(record.Full)
	const notification, answer = `{"jsonrpc":"2.0","method":"notifications/initialized"}`, `{"jsonrpc":"2.0","id":1,"result":{}}`
	token := a.openSession()
	post(a.url, token, notification).send(t)
	post(a.url, token, pingBody).send(t)
	if got := post(a.url, token, secretCall).send(t); !strings.Contains(got.body, "sampling") {
		t.Fatalf("the call: %+v", got)
	}
	post(a.url, token, answer).send(t)
	post(a.url, token, `{"jsonrpc":"2.0","id":`).send(t) // concerns no session yet
	del(a.url, token).send(t)

	hidden := func(text, secret string) string { return strings.Replace(text, secret, "[redacted]", 1) }
	wantFrames(t, inShort(t, read(token)),
		clean("client", "initialize", `"init"`, initializeBody, 0),
		clean("upstream", "", `"init"`, initialized, 200),
		clean("client", "notifications/initialized", "", notification, 0),
		clean("client", "ping", "1", pingBody, 0),
		clean("upstream", "", "1", answer, 200),
		fmt.Sprintf(`client tools/call "c1" %d 0 %s`, len(secretCall), cleanCall),
		fmt.Sprintf(`upstream notifications/progress  %d 0 %s`, len(streamedMessages[0]), hidden(streamedMessages[0], "of the server's")),
		clean("upstream", "sampling/createMessage", "1", streamedMessages[1], 0),
		fmt.Sprintf(`upstream  "c1" %d 200 %s`, len(streamedMessages[2]), hidden(streamedMessages[2], upstreamSession)),
		clean("client", "", "1", answer, 0),
	)
}

// What the upstream never sees (the session's token, a bearer token that is not passed on) can be in its answers all the same: the client may
// have said it. However an answer comes, and on the session's own stream, it is not recorded.
func TestWhatClientsProveThemselvesWithIsInNoRecording(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	const pin = "pin-of-alice"
	bearer, token := i.Token("alice"), ""
	said := func() string {
		return `{"jsonrpc":"2.0","method":"notifications/message","params":{"data":["I am ` + token + `","with ` + bearer + `"]}}`
	}
	say := make(chan struct{})
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		answer := `{"jsonrpc":"2.0","id":"c1","result":{"structuredContent":{"said":` + got.body + `}}}`
		switch {
		case r.Method == http.MethodGet:
			w.Header().Set("Content-Type", "text/event-stream")
			flush(w)
			<-say
			_, _ = io.WriteString(w, "data: "+said()+"\n\n")
		case got.msg.Method != "tools/call":
			return false
		case strings.Contains(got.body, "streams"):
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: "+said()+"\n\ndata: "+answer+"\n\n")
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, answer)
		}
		return true
	})
	a, read := newFleet(t, upstream.url).recording(record.Full, asksFor(t, i, func(c *auth.Config) { c.UpstreamToken = auth.UpstreamStrip }))
	opened := post(a.url, "", initializeBody).as(bearer).send(t)
	token = opened.header.Get("Mcp-Session-Id")
	for _, how := range []string{"answers", "streams"} {
		call := `{"jsonrpc":"2.0","id":"c1","method":"tools/call","params":{"name":"` + how + `","arguments":{"a":"` + token + `","b":"` + bearer + `","c":"` + pin + `"}}}`
		if got := post(a.url, token, call).as(bearer).with("X-Pin", pin).send(t); !strings.Contains(got.body, bearer) || !strings.Contains(got.body, token) {
			t.Fatalf("%s: %+v", how, got)
		}
	}
	stream := get(a.url, token).as(bearer).open(t)
	close(say)
	if heard := readUntil(t, stream.Body, bearer); !strings.Contains(heard, token) {
		t.Fatalf("on the own stream: %s", heard)
	}
	_, secret, _ := strings.Cut(token, ".")
	frames := read(token)
	if len(frames) != 2+2+3+1 {
		t.Errorf("%d frames", len(frames))
	}
	for n, f := range frames {
		if payload := string(f.Payload); payload == "" || strings.Contains(payload, secret) || strings.Contains(payload, bearer) || strings.Contains(payload, pin) {
			t.Errorf("frame %d, from the %s: %s", n, f.Direction, payload)
		}
	}
}

// readUntil reads until what is read contains a text.
func readUntil(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	heard := make([]byte, 0, 1000)
	for part := make([]byte, 500); !bytes.Contains(heard, []byte(text)); {
		n, err := r.Read(part)
		if heard = append(heard, part[:n]...); err != nil {
			t.Fatalf("%v after %s", err, heard)
		}
	}
	return string(heard)
}

func TestMetadataHasNoPayload(t *testing.T) {
	t.Parallel()
	a, read := newFleet(t, newUpstream(t, streamsAnswers).url).recording(record.Metadata)
	token := a.openSession()
	post(a.url, token, pingBody).send(t)
	post(a.url, token, secretCall).send(t)
	wantFrames(t, inShort(t, read(token)),
		fmt.Sprintf(`client initialize "init" %d 0`, len(initializeBody)),
		fmt.Sprintf(`upstream  "init" %d 200`, len(initialized)),
		fmt.Sprintf(`client ping 1 %d 0`, len(pingBody)),
		fmt.Sprintf(`upstream  1 %d 200`, len(`{"jsonrpc":"2.0","id":1,"result":{}}`)),
		fmt.Sprintf(`client tools/call "c1" %d 0`, len(secretCall)),
		fmt.Sprintf(`upstream notifications/progress  %d 0`, len(streamedMessages[0])),
		fmt.Sprintf(`upstream sampling/createMessage 1 %d 0`, len(streamedMessages[1])),
		fmt.Sprintf(`upstream  "c1" %d 200`, len(streamedMessages[2])),
	)
}

func TestRefusalsAreRecordedWithoutWhatWasRefused(t *testing.T) {
	t.Parallel()
	upstream := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method == "tools/call" {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, "no such tool")
		}
		return got.msg.Method == "tools/call"
	})
	a, read := newFleet(t, upstream.url, func(c *cluster.Config) { c.RequestRate, c.RequestBurst = 1, 3 }).recording(record.Full)
	token := a.openSession()
	post(a.url, token, secretCall).send(t) // the upstream's own answer, which is not JSON
	batch := post(a.url, token, "["+pingBody+"]").send(t)
	for status := 0; status != http.StatusTooManyRequests; {
		status = post(a.url, token, pingBody).send(t).status
	}
	wrong := token[:len(token)-1] + map[bool]string{true: "B", false: "A"}[strings.HasSuffix(token, "A")]
	if got := post(a.url, wrong, secretCall).send(t); got.status != http.StatusNotFound {
		t.Fatalf("with a wrong secret: %+v", got)
	}
	frames := read(token)
	lines := inShort(t, frames)
	wantFrames(t, lines[2:6],
		fmt.Sprintf(`client tools/call "c1" %d 0 %s`, len(secretCall), cleanCall),
		fmt.Sprintf(`upstream  "c1" %d 400`, len("no such tool")),
		clean("client", "(batch)", "", "["+pingBody+"]", 0),
		fmt.Sprintf(`proxy   %d 400`, len(batch.body)),
	)
	last := frames[len(frames)-2:]
	if last[0].Method != "ping" || len(last[0].Payload) > 0 || last[1].Direction != cluster.FromProxy || last[1].Status != 429 ||
		last[1].MessageID != "1" || len(last[1].Payload) > 0 {
		t.Errorf("a request that was refused, and the refusal: %+v", last)
	}
}

// One replica reads the session's own stream, and records it; the replica whose client hears of it does not.
func TestASessionsOwnStreamIsRecordedByItsReader(t *testing.T) {
	t.Parallel()
	const message = `{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`
	say := make(chan struct{})
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request, _ recorded) bool {
		if r.Method != http.MethodGet {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flush(w)
		select {
		case <-say:
			_, _ = io.WriteString(w, "data: "+message+"\n\n")
			flush(w)
		case <-r.Context().Done():
		}
		<-r.Context().Done()
		return true
	})
	a, read := newFleet(t, upstream.url).recording(record.Full)
	token := a.openSession()
	stream := get(a.url, token).open(t)
	close(say)
	readUntil(t, stream.Body, message)
	lines := inShort(t, read(token))
	wantFrames(t, lines[2:], clean("upstream", "notifications/tools/list_changed", "", message, 0))
}

func TestAnAnswerThatIsLostIsRecordedAsTheProxys(t *testing.T) {
	t.Parallel()
	upstream := newUpstream(t, func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Method != "tools/call" {
			return false
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flush(w)
		panic(http.ErrAbortHandler)
	})
	a, read := newFleet(t, upstream.url).recording(record.Full)
	token := a.openSession()
	post(a.url, token, secretCall).send(t)
	frames := read(token)
	last := frames[len(frames)-1]
	if last.Direction != cluster.FromProxy || last.MessageID != `"c1"` || !strings.Contains(string(last.Payload), string(mcp.ReasonMayHaveRun)) {
		t.Errorf("the last frame: %+v", last)
	}
}

func TestWhatHasNoSessionIsNotRecorded(t *testing.T) {
	t.Parallel()
	f := newFleet(t, newUpstream(t, nil).url)
	store := &countingFrames{}
	recorder := record.New(record.Config{Store: store, Mode: record.Full})
	a := f.replica(func(c *proxy.Config) { c.Recorder = recorder })
	if got := stateless(a.url, "tools/list", "").send(t); got.status != http.StatusOK {
		t.Fatalf("stateless: %+v", got)
	}
	post(a.url, "", pingBody).send(t) // refused: no session
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = recorder.Run(ctx) // writes what is waiting
	if n := store.n.Load(); n > 0 {
		t.Errorf("%d frames are recorded", n)
	}
}

// countingFrames counts the frames that it is given.
type countingFrames struct {
	cluster.FrameStore

	n atomic.Int64
}

func (s *countingFrames) AppendFrames(_ context.Context, _ cluster.ID, frames []cluster.Frame) error {
	s.n.Add(int64(len(frames)))
	return nil
}

// BenchmarkRecordedRequest is BenchmarkHotRequest with a recording: off is what it costs without.
func BenchmarkRecordedRequest(b *testing.B) {
	const answer = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}]}}`
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		if bytes.Contains(body, []byte(`"initialize"`)) {
			w.Header().Set("Mcp-Session-Id", upstreamSession)
			_, _ = io.WriteString(w, initialized)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	b.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	if err != nil {
		b.Fatal(err)
	}
	for _, mode := range []record.Mode{record.Off, record.Metadata, record.Full} {
		b.Run(string(mode), func(b *testing.B) {
			at, recorder := benchRecording(b, target, mode)
			benchRequests(b, at, "json")
			if recorder != nil {
				b.ReportMetric(float64(recorder.Dropped())/float64(b.N), "dropped/op")
			}
		})
	}
}

// benchRecording starts a replica that records with the default rules. What the store does with it is not measured: it would be done in
// another process.
func benchRecording(b *testing.B, target *url.URL, mode record.Mode) (at string, recorder *record.Recorder) {
	b.Helper()
	limits := cluster.DefaultConfig()
	limits.RequestRate = 0
	store, err := redisstore.Open(redisstore.EmbeddedURL, redisstore.Options{Config: limits})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	manager, err := cluster.NewManager(store, limits, cluster.Options{})
	if err != nil {
		b.Fatal(err)
	}
	rules, err := record.ParseRules(record.DefaultRedact())
	if err != nil {
		b.Fatal(err)
	}
	recorder = record.New(record.Config{Store: &countingFrames{}, Mode: mode, Redact: rules, Replica: manager.Incarnation()})
	p, err := proxy.New(manager, proxy.Config{Upstreams: []proxy.Upstream{{URL: target}}, Recorder: recorder})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = manager.Run(ctx) })
	if recorder != nil {
		running.Go(func() { _ = recorder.Run(ctx) })
	}
	server := httptest.NewServer(p)
	b.Cleanup(func() { server.Close(); p.Close(); stop(); running.Wait() })
	return server.URL + "/mcp", recorder
}
