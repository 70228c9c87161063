package proxy_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// question is what a server asks its client, answered is the client's answer.
func question(id string) string {
	return `{"jsonrpc":"2.0", "id": ` + id + ` ,"method":"sampling/createMessage","params":{"n":1.50}}`
}

func answered(id mcp.ID, what string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{"from":%q}}`, id, what)
}

// idOf is the id of a message as the client gives it back.
func idOf(t *testing.T, message string) mcp.ID {
	t.Helper()
	msg, err := mcp.Peek([]byte(message))
	if err != nil || msg.ID == "" {
		t.Fatalf("%s: %v; want a message with an id", message, err)
	}
	return msg.ID
}

// told are the messages that hold a text, as the upstream got them.
func (u *upstream) told(text string) (bodies []string) {
	for _, got := range u.requests() {
		if strings.Contains(got.body, text) {
			bodies = append(bodies, got.body)
		}
	}
	return bodies
}

// wantsTaken wants a message that needs no answer to be taken.
func wantsTaken(t *testing.T, got answer) {
	t.Helper()
	if got.status != http.StatusAccepted || got.body != "" {
		t.Errorf("%d %s, want 202", got.status, got.body)
	}
}

// A client's answer reaches the upstream session that has asked, whichever replica it is sent to, and never a later one that has asked
// something else by the same id.
func TestAnAnswerReachesOnlyTheUpstreamSessionThatHasAsked(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]string{
		"number": "1", "string": `"1"`, "big number": "123456789012345678901234567890", "escapes": `"a\"b\\\u00e9/"`, "negative": "-7",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newTalker(t)
			f := newFleet(t, k.url, func(c *cluster.Config) { c.Lease, c.RequestRate = time.Minute, 0 }) // they hear late of a recovery elsewhere
			a, b := f.nodes()
			c := f.node()
			token := a.openSession()
			wantsAnswer(t, post(c.url, token, pingBody).send(t))
			s := listen(t, a, token)
			k.say(question(id))
			s.wants(question(id)) // as it was asked
			early := idOf(t, question(id))
			wantsTaken(t, post(c.url, token, answered(early, "in time")).send(t))
			if got := k.told("in time"); !slices.Equal(got, []string{answered(early, "in time")}) {
				t.Errorf("the first upstream session was told %q", got)
			}
			k.lose()
			wantsAnswer(t, post(b.url, token, pingBody).send(t))

			k.say(question(id), `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":`+id+`}}`)
			asked := s.message()
			now := idOf(t, asked)
			if now == early || strings.Replace(asked, string(now), id, 1) != question(id) {
				t.Errorf("the second upstream session's question is %s", asked)
			}
			if got := s.message(); !strings.Contains(got, `"requestId":`+string(now)+`}`) {
				t.Errorf("the cancelled request is %s, want %s", got, now)
			}
			for i, at := range []*node{a, b, c} {
				wantsTaken(t, post(at.url, token, answered(now, fmt.Sprint("replica ", i))).send(t)) // which may not know yet who asks
				wantsTaken(t, post(at.url, token, answered(early, "too late")).send(t))
				if got, want := k.told(fmt.Sprint("replica ", i)), answered(early, fmt.Sprint("replica ", i)); !slices.Equal(got, []string{want}) {
					t.Errorf("the second upstream session was told %q, want %s", got, want)
				}
			}
			for _, got := range k.requests() {
				if strings.Contains(got.body, "too late") && got.header.Get("Mcp-Session-Id") == k.latest().id {
					t.Errorf("the second upstream session was told %q", got.body)
				}
			}
		})
	}
}

// The same for what is asked on the stream that answers a request.
func TestQuestionsInAnAnswerAreThoseOfTheirUpstreamSession(t *testing.T) {
	t.Parallel()
	messages := make(chan string, 10)
	k := newTalker(t, func(k *talker) {
		k.next = func(w http.ResponseWriter, r *http.Request, got recorded) bool {
			if got.msg.Method == "tools/call" {
				answerWith(w, r, messages)
			}
			return got.msg.Method == "tools/call"
		}
	})
	_, a, b, token := listening(t, k)
	var ids []mcp.ID
	for range 3 {
		s := post(b.url, token, callBody).stream(t)
		messages <- question("5")
		ids = append(ids, idOf(t, s.message()))
		what := "upstream session " + strconv.Itoa(len(ids))
		for _, id := range ids {
			wantsTaken(t, post(a.url, token, answered(id, what)).send(t))
		}
		if got, want := k.told(what), answered("5", what); !slices.Equal(got, []string{want}) {
			t.Errorf("the upstream was told %q, want %s", got, want)
		}
		messages <- result
		s.wantsRest(result)
		k.lose()
		wantsAnswer(t, post(a.url, token, pingBody).send(t))
	}
	if ids[0] != "5" || ids[1] == ids[2] {
		t.Errorf("the ids are %v", ids)
	}
}

// A batch goes on without the answers that belong to a lost upstream session.
func TestABatchIsSentWithoutAnswersToOthers(t *testing.T) {
	t.Parallel()
	k := newTalker(t, func(k *talker) {
		k.revision = "2025-03-26"
	})
	f := newFleet(t, k.url)
	a, b := f.nodes()
	token := a.openSessionWith(strings.Replace(initializeBody, "2025-11-25", "2025-03-26", 1))
	s := get(a.url, token).stream(t)
	ping := `{"jsonrpc":"2.0","id":9,"method":"ping"}`
	late := answered("1", "late")

	wantsTaken(t, post(b.url, token, "["+late+"]").send(t)) // nothing is lost yet
	k.lose()
	before := len(k.requests())
	if got := post(b.url, token, "["+late+", "+ping+"]").send(t); got.status >= http.StatusBadRequest {
		t.Errorf("%d %s", got.status, got.body)
	}
	var batches []string
	for _, got := range k.requests()[before:] {
		if got.msg.Kind == mcp.KindBatch {
			batches = append(batches, got.body)
		}
	}
	if want := []string{"[" + late + ", " + ping + "]", "[" + ping + "]"}; !slices.Equal(batches, want) {
		t.Errorf("the upstream got %q, want %q", batches, want)
	}
	k.say("[" + question("1") + "," + question(`"x"`) + "]")
	asked, err := mcp.RewriteIDs([]byte(s.message()), func(_ mcp.IDRole, id mcp.ID) (mcp.ID, bool) {
		batches = append(batches, answered(id, "new"))
		return id, true
	})
	if err != nil || len(batches) != 4 {
		t.Fatalf("%s, %v", asked, err)
	}
	wantsTaken(t, post(a.url, token, "["+late+","+batches[2]+","+batches[3]+"]").send(t))
	if got, want := k.told("new"), "["+answered("1", "new")+","+answered(`"x"`, "new")+"]"; !slices.Equal(got, []string{want}) {
		t.Errorf("the upstream was told %q, want %s", got, want)
	}
	wantsTaken(t, post(a.url, token, "["+late+"]").send(t))
	if got := k.told("late"); len(got) != 2 {
		t.Errorf("the upstream was told %q", got)
	}
}

// What a client makes up reaches the upstream as no other message than an answer.
func TestNothingIsSmuggledInAnAnswersID(t *testing.T) {
	t.Parallel()
	k := newTalker(t)
	_, a, _, token := listening(t, k)
	s := listen(t, a, token)
	k.lose()
	wantsAnswer(t, post(a.url, token, pingBody).send(t))
	k.say(question("1"))
	good := idOf(t, s.message())
	for _, id := range []string{
		`"shadowcat.1.MSwibWV0aG9kIjoicGluZyI"`, // 1,"method":"ping"
		`"shadowcat.1."`, `"shadowcat."`, `"shadowcat.1"`, `"shadowcat.9.MQ"`, `"shadowcat.-1.MQ"`, `"shadowcat.01.MQ"`, `"shadowcat.1.MR"`,
		strings.Replace(string(good), "1.", "1..", 1), `""`, "1", "null",
	} {
		body := answered(mcp.ID(id), "made up")
		if id == "null" {
			body = `{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"made up"}}`
		}
		wantsTaken(t, post(a.url, token, body).send(t))
	}
	if got := k.told("made up"); len(got) > 0 {
		t.Errorf("the upstream was told %q", got)
	}
	wantsTaken(t, post(a.url, token, answered(good, "good")).send(t))
	if got := k.told("good"); len(got) != 1 {
		t.Errorf("the upstream was told %q", got)
	}
}
