package proxy

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// Whatever id an upstream asks by, the client sees one that only this upstream session's questions have, and the upstream gets its own
// back.
func FuzzQuestionsHaveIDsOfTheirUpstreamSession(f *testing.F) {
	for _, id := range []string{`1`, `"1"`, `-0`, `123456789012345678901234567890`, `"a\"b\\\u00e9\ud83d\ude00"`, `""`, `"shadowcat.1.MQ"`, `1.5`, `null`} {
		f.Add([]byte(id), int64(1))
	}
	f.Fuzz(func(t *testing.T, text []byte, generation int64) {
		question := append(append([]byte(`{"jsonrpc":"2.0","id":`), text...), `,"method":"roots/list","params":{"n":1.50}}`...)
		msg, err := mcp.Peek(question)
		if err != nil || msg.Kind != mcp.KindRequest || generation < 1 {
			return
		}
		seen, err := mcp.Peek(asked(mcp.Event{Data: question}, generation))
		if err != nil || seen.Method != "roots/list" {
			t.Fatalf("%s is seen as %+v, %v", question, seen, err)
		}
		if back, after := unmark(seen.ID); len(msg.ID) <= maxMarked && (back != msg.ID || after != generation) {
			t.Fatalf("%s is %s, of generation %d, for %s of %d", seen.ID, back, after, msg.ID, generation)
		}
		answer := append(append([]byte(`{"jsonrpc":"2.0","result":{"n":1.50},"id":`), seen.ID...), '}')
		want := append(append([]byte(`{"jsonrpc":"2.0","result":{"n":1.50},"id":`), msg.ID...), '}')
		if got := answersFor(answer, generation); !bytes.Equal(got, want) || !json.Valid(got) {
			t.Fatalf("the upstream gets %s, want %s", got, want)
		}
		if got := answersFor(answer, generation+1); len(msg.ID) <= maxMarked && got != nil {
			t.Fatalf("another upstream session gets %s", got)
		}
	})
}

func TestIDsTooLongToBeMarkedStayAsTheyAre(t *testing.T) {
	t.Parallel()
	long := mcp.ID(`"` + string(bytes.Repeat([]byte{'x'}, 1000)) + `"`)
	question := []byte(`{"id":` + string(long) + `,"method":"roots/list"}`)
	answer := []byte(`{"id":` + string(long) + `,"result":{}}`)
	if got := asked(mcp.Event{Data: question}, 3); !bytes.Equal(got, question) {
		t.Errorf("the question is seen as %s", got)
	}
	if got := answersFor(answer, 3); !bytes.Equal(got, answer) {
		t.Errorf("the answer is seen as %s", got)
	}
	if longest := mark(mcp.ID(`"`+string(bytes.Repeat([]byte{'x'}, maxMarked-2))+`"`), 1<<62); len(longest) > 1024 {
		t.Errorf("the longest mark has %d bytes", len(longest))
	}
}

func TestBeforeARecoveryNothingIsLookedAt(t *testing.T) {
	t.Parallel()
	question := []byte(`no JSON`)
	if got := asked(mcp.Event{Data: question}, 0); &got[0] != &question[0] {
		t.Errorf("%s was copied", got)
	}
	if got := answersFor(question, 0); &got[0] != &question[0] {
		t.Errorf("%s was copied", got)
	}
}
