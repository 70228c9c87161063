package proxy_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// answersAs answers requests in a batch or alone as JSON or as a stream of events, those that hold "refuse" with an error.
func answersAs(stream bool) handler {
	return func(w http.ResponseWriter, _ *http.Request, got recorded) bool {
		if got.msg.Kind != mcp.KindRequest && got.msg.Kind != mcp.KindBatch {
			return false
		}
		var answers []string
		for text := range strings.SplitSeq(strings.Trim(got.body, "[]"), "\n") {
			msg, err := mcp.Peek([]byte(strings.Trim(text, ", ")))
			if err != nil || msg.Kind != mcp.KindRequest {
				continue
			}
			says := `"result":{}`
			if strings.Contains(text, "refuse") {
				says = `"error":{"code":-32602,"message":"no"}`
			}
			answers = append(answers, `{"jsonrpc":"2.0","id":`+string(msg.ID)+`,`+says+`}`)
		}
		slices.Reverse(answers) // they may come in any order
		if stream {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: "+strings.Join(answers, "\n\ndata: ")+"\n\n")
			return true
		}
		text := answers[0]
		if got.msg.Kind == mcp.KindBatch {
			text = "[" + strings.Join(answers, ",") + "]"
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, text)
		return true
	}
}

// A new upstream session is told what the client has asked for and was granted, in a batch or alone.
func TestANewUpstreamSessionIsToldWhatTheOldOneHadGranted(t *testing.T) {
	t.Parallel()
	alone := []string{
		call(1, "logging/setLevel", `{"level":"debug"}`), call(2, "logging/setLevel", `{"level":"refuse"}`),
		call(3, "resources/subscribe", `{"uri":"file:///a"}`), call(4, "resources/subscribe", `{"uri":"file:///refuse"}`),
		call(5, "resources/subscribe", `{"uri":"file:///b"}`), call(6, "resources/unsubscribe", `{"uri":"file:///b"}`),
		call(7, "resources/subscribe", `{"uri":"file:///c"}`), call(8, "resources/unsubscribe", `{"uri":"file:///c","why":"refuse"}`),
	}
	batch := []string{"[" + strings.Join([]string{alone[0], alone[2], alone[3], alone[6], call(9, "ping", "{}")}, "\n,") + "]"}
	for name, bodies := range map[string][]string{"alone": alone, "in a batch": batch} {
		for kind, stream := range map[string]bool{"JSON": false, "events": true} {
			t.Run(name+", answered by "+kind, func(t *testing.T) {
				t.Parallel()
				k := newTalker(t)
				k.revision, k.next = "2025-03-26", answersAs(stream)
				_, a, b, token := listening(t, k)
				for i, body := range bodies {
					got := post([]*node{a, b}[i%2].url, token, body).send(t)
					if got.status != http.StatusOK || strings.Count(got.body, `"jsonrpc"`) != strings.Count(body, `"jsonrpc"`) {
						t.Fatalf("%s: %d %s", body, got.status, got.body)
					}
				}
				k.lose()
				before := len(k.requests())
				wantsAnswer(t, post(b.url, token, pingBody).send(t))
				var told []string
				for _, got := range k.requests()[before:] {
					if got.msg.Lasts {
						told = append(told, got.msg.Method+" "+got.body[strings.Index(got.body, `"params":`)+len(`"params":`):len(got.body)-1])
					}
				}
				slices.Sort(told)
				want := []string{`logging/setLevel {"level":"debug"}`, `resources/subscribe {"uri":"file:///a"}`, `resources/subscribe {"uri":"file:///c"}`}
				if !slices.Equal(told, want) {
					t.Errorf("the new upstream session was told %q, want %q", told, want)
				}
			})
		}
	}
}
