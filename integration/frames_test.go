package integration_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// recordedFrame is a frame as `session frames --output jsonl` prints it.
type recordedFrame struct {
	Number    int64           `json:"number"`
	At        time.Time       `json:"at"`
	Direction string          `json:"direction"`
	Method    string          `json:"method"`
	ID        json.RawMessage `json:"id"`
	Status    int             `json:"status"`
	LatencyMS float64         `json:"latency_ms"`
	Replica   string          `json:"replica"`
	Payload   json.RawMessage `json:"payload"`
}

// short is what a conversation is compared by.
func (f recordedFrame) short() string {
	short := f.Direction + " " + f.Method + " " + string(f.ID)
	if f.Status != 0 {
		short += fmt.Sprint(" ", f.Status)
	}
	return short
}

// The secrets of a recorded conversation. None of them may be in the store's frames, or in what is shown of them.
const (
	upstreamSecret = "upstream-session-of-the-recorded"
	bearerSecret   = "bearer-of-the-recorded"
	argumentSecret = "argument-of-the-recorded"
)

// newTalkativeUpstream is an MCP server that repeats what it is told in headers, and answers count by a stream.
func newTalkativeUpstream(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var message struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params struct {
				Name string `json:"name"`
			} `json:"params"`
		}
		_ = json.Unmarshal(body, &message) // a GET has none
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method == http.MethodGet:
			http.Error(w, "{}", http.StatusMethodNotAllowed)
		case message.Method == "initialize":
			w.Header().Set("Mcp-Session-Id", upstreamSecret)
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"u","version":"1"}}}`, message.ID)
		case message.ID == nil || message.Method == "":
			w.WriteHeader(http.StatusAccepted)
		case message.Params.Name == "count":
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":1}}\n\n")
			fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"headers\":%q}}\n\n", message.ID, fmt.Sprint(r.Header))
		default:
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"headers":%q,"api_key":%q}}`, message.ID, fmt.Sprint(r.Header), argumentSecret)
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL + "/mcp"
}

// One conversation through three replicas is one recording, without a secret in it, while the session lives and afterwards.
func TestAConversationThroughThreeReplicasIsRecorded(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newTalkativeUpstream(t), "--recording=full")
	send := func(at int, token, body string, want int) {
		t.Helper()
		if got := mustSend(t, post(d.Replicas[at].URL(), token, body).with("Authorization", "Bearer "+bearerSecret)); got.status != want {
			t.Fatalf("%s: %s, want %d", body, got, want)
		}
	}
	token := openSession(t, d.Replicas[0].URL(), "2025-11-25")
	id, secret, _ := strings.Cut(token, ".")
	follower := follow(t, store.URL(), id)
	call := func(id, tool string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":%q,"arguments":{"Password":%q,"n":[{"access-token":1}]}}}`,
			id, tool, argumentSecret)
	}
	send(1, token, call("1", "echo"), http.StatusOK)
	send(2, token, call(`"two"`, "count"), http.StatusOK)
	send(0, token, `{"jsonrpc":"2.0","id":3,"result":{"token":"`+argumentSecret+`"}}`, http.StatusAccepted)
	send(1, token, `[`+call("4", "echo")+`]`, http.StatusBadRequest)

	// Replicas write independently, and those of one replica keep their order. The times of others' are off by what a call to the store takes.
	want := [][]string{
		{`client initialize "init-1"`, `upstream  "init-1" 200`, `client notifications/initialized null`, `client  3`},
		{`client tools/call 1`, `upstream  1 200`, `client (batch) null`, `proxy  null 400`},
		{`client tools/call "two"`, `upstream notifications/progress null`, `upstream  "two" 200`},
	}
	const total = 4 + 4 + 3
	var frames []recordedFrame
	eventually(t, 10*time.Second, func(context.Context) error {
		frames = framesOf(t, store.URL(), id)
		if len(frames) != total {
			return fmt.Errorf("%d frames are recorded, want %d:\n%s", len(frames), total, strings.Join(shorts(frames), "\n"))
		}
		return nil
	})
	for _, f := range frames {
		if f.Payload == nil && f.Direction != "proxy" {
			t.Errorf("frame %d has no payload", f.Number)
		}
	}
	begunWith := byReplica(frames)
	if len(begunWith) != len(want) {
		t.Errorf("frames are of %d replicas, want %d", len(begunWith), len(want))
	}
	for _, w := range want {
		if got := shorts(begunWith[w[0]]); !slices.Equal(got, w) {
			t.Fatalf("one replica recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(w, "\n"))
		}
	}
	echoed := begunWith[want[1][0]]
	if got := string(echoed[0].Payload); !strings.Contains(got, `"Password":"[redacted]","n":[{"access-token":"[redacted]"}]`) {
		t.Errorf("the call is recorded as %s", got)
	}
	// The upstream has seen the client's credentials, and repeated them.
	if got := string(echoed[1].Payload); !strings.Contains(got, `"headers":"[redacted]","api_key":"[redacted]"`) {
		t.Errorf("the answer is recorded as %s", got)
	}

	command(t, 0, "session", "terminate", id, "--redis", store.URL())
	shown := command(t, 0, "session", "frames", id, "--redis", store.URL())
	t.Logf("session frames, of the ended session:\n%s", shown)
	t.Logf("session show:\n%s", command(t, 0, "session", "show", id, "--redis", store.URL()))
	followed := follower()
	if got := len(strings.Split(strings.TrimSpace(followed), "\n")); got != total {
		t.Errorf("session frames --follow printed %d lines, want %d:\n%s", got, total, followed)
	}
	for what, text := range map[string]string{
		"the table": shown, "what was followed": followed, "the lines": command(t, 0, "session", "frames", id, "--redis", store.URL(), "--output", "jsonl"),
		"the store": rawFrames(t, store, id),
	} {
		for _, s := range []string{secret, upstreamSecret, bearerSecret, argumentSecret} {
			if strings.Contains(text, s) {
				t.Errorf("%s has the secret %q", what, s)
			}
		}
		if !strings.Contains(text, "tools/call") {
			t.Errorf("%s has no call: %s", what, text)
		}
	}
}

// A replica that stops has written what it recorded.
func TestAReplicaThatStopsHasWrittenItsRecording(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newTalkativeUpstream(t), "--recording=metadata")
	token := openSession(t, d.Replicas[0].URL(), "2025-11-25")
	id, _, _ := strings.Cut(token, ".")
	const requests = 40
	for range requests {
		mustSend(t, post(d.Replicas[0].URL(), token, pingBody))
	}
	if err := d.Replicas[0].Stop(); err != nil {
		t.Fatal(err)
	}
	frames := framesOf(t, store.URL(), id)
	if got, want := len(frames), 3+2*requests; got != want {
		t.Errorf("%d frames are recorded, want %d", got, want)
	}
	for _, f := range frames {
		if f.Payload != nil {
			t.Fatalf("frame %d has a payload: %s", f.Number, f.Payload)
		}
	}
}

// Without the setting nothing is recorded, and the command says how to change that.
func TestNothingIsRecordedUnlessAskedFor(t *testing.T) {
	t.Parallel()
	store := newRedis(t, redisOptions)
	d := newDeployment(t, store.URL(), newTalkativeUpstream(t))
	token := openSession(t, d.Replicas[0].URL(), "2025-11-25")
	id, _, _ := strings.Cut(token, ".")
	if err := d.Replicas[0].Stop(); err != nil {
		t.Fatal(err)
	}
	if got := command(t, 0, "session", "frames", id, "--redis", store.URL()); !strings.HasPrefix(got, "Nothing is recorded of this session: ") {
		t.Errorf("session frames: %q", got)
	}
}

// byReplica returns the frames of each replica, by what the first of them is compared by.
func byReplica(frames []recordedFrame) map[string][]recordedFrame {
	recorded := make(map[string][]recordedFrame)
	for _, f := range frames {
		recorded[f.Replica] = append(recorded[f.Replica], f)
	}
	begunWith := make(map[string][]recordedFrame)
	for _, some := range recorded {
		begunWith[some[0].short()] = some
	}
	return begunWith
}

func shorts(frames []recordedFrame) []string {
	all := make([]string, 0, len(frames))
	for _, f := range frames {
		all = append(all, f.short())
	}
	return all
}

// framesOf returns what is recorded of a session.
func framesOf(t *testing.T, redisURL, id string) []recordedFrame {
	t.Helper()
	var frames []recordedFrame
	for line := range strings.Lines(command(t, 0, "session", "frames", id, "--redis", redisURL, "--output", "jsonl")) {
		var f recordedFrame
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		frames = append(frames, f)
	}
	return frames
}

// follow starts `session frames --follow` and returns what waits for its end and returns what it printed.
func follow(t *testing.T, redisURL, id string) func() string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	run := exec.CommandContext(ctx, built(t, productBinary), "session", "frames", id, "--redis", redisURL, "--output", "jsonl", "--follow")
	run.Env = process.Environment("SHADOWCAT_")
	stdout, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	type result struct {
		text string
		err  error
	}
	ended := make(chan result, 1)
	go func() { // ends with the command, which the context bounds
		text, err := io.ReadAll(bufio.NewReader(stdout))
		ended <- result{string(text), errors.Join(err, run.Wait())}
	}()
	return func() string {
		t.Helper()
		r := <-ended
		if r.err != nil {
			t.Errorf("session frames --follow: %v", r.err)
		}
		return r.text
	}
}

// rawFrames is what Redis itself holds of a recording.
func rawFrames(t *testing.T, store *redisserver.Server, id string) string {
	t.Helper()
	options, err := redis.ParseURL(store.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	entries, err := client.XRange(t.Context(), "shadowcat:{0}:frames:"+id, "-", "+").Result()
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d frames in Redis: %v", len(entries), err)
	}
	return fmt.Sprint(entries)
}
