package mcp_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// marked puts m in front of ids of requests, of those that are cancelled and of those that are answered; ids that are "gone" are left
// out with their messages.
func marked(role mcp.IDRole, id mcp.ID) (mcp.ID, bool) {
	if role < mcp.IDOfRequest || role > mcp.IDOfCancelled {
		panic("no such role")
	}
	if id == "" || id == `"gone"` {
		return id, id == ""
	}
	return `"m` + mcp.ID(strings.ReplaceAll(strings.Trim(string(id), `"`), `\`, "/")) + `"`, true
}

func TestIDsAreRewrittenAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, want string }{
		"number":           {`{"jsonrpc":"2.0","id":7,"method":"roots/list"}`, `{"jsonrpc":"2.0","id":"m7","method":"roots/list"}`},
		"string":           {`{"id":"7","method":"ping"}`, `{"id":"m7","method":"ping"}`},
		"big number":       {`{"id":123456789012345678901234567890,"method":"ping"}`, `{"id":"m123456789012345678901234567890","method":"ping"}`},
		"spaces and order": {" {\n\"method\" : \"ping\" ,\t\"id\"  :  1.0e0 , \"params\" : { \"id\" : 3 } } ", " {\n\"method\" : \"ping\" ,\t\"id\"  :  1.0e0 , \"params\" : { \"id\" : 3 } } "},
		"escaped key":      {`{"\u0069d": 5 ,"method":"ping","params":{"id":1.50}}`, `{"\u0069d": "m5" ,"method":"ping","params":{"id":1.50}}`},
		"null":             {`{"id":null,"error":{}}`, `{"id":null,"error":{}}`},
		"no id":            {`{"error":{}}`, `{"error":{}}`},
		"notification":     {`{"method":"notifications/progress","params":{"requestId":1}}`, `{"method":"notifications/progress","params":{"requestId":1}}`},
		"cancelled":        {`{"method":"notifications/cancelled","params":{"reason":"x","requestId":1}}`, `{"method":"notifications/cancelled","params":{"reason":"x","requestId":"m1"}}`},
		"cancelled, names": {`{"params":{"requestId":"a","id":2},"method":"notifications/\u0063ancelled"}`, `{"params":{"requestId":"ma","id":2},"method":"notifications/\u0063ancelled"}`},
		"cancels nothing":  {`{"method":"notifications/cancelled","params":[1]}`, `{"method":"notifications/cancelled","params":[1]}`},
		"response":         {`{"id":1,"result":{"id":2,"requestId":3}}`, `{"id":"m1","result":{"id":2,"requestId":3}}`},
		"left out":         {`{"id":"gone","result":{}}`, ``},
		"batch": {
			"[ {\"id\":1,\"method\":\"a\"} ,\n{\"id\":\"gone\",\"result\":1},{\"method\":\"b\" },{\"id\":2,\"error\":{ }}]",
			`[{"id":"m1","method":"a"},{"method":"b" },{"id":"m2","error":{ }}]`,
		},
		"batch that is left out": {`[{"id":"gone","result":{}},{"id":"gone","result":{}}]`, ``},
		"batch without ids":      {`[ {"method":"b"} ]`, `[ {"method":"b"} ]`},
		"id twice":               {`{"id":1,"id":2,"method":"a"}`, `{"id":"m1","id":"m2","method":"a"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := mcp.RewriteIDs([]byte(test.text), marked)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatIsNoMessageHasNoIDsToRewrite(t *testing.T) {
	t.Parallel()
	for _, text := range []string{``, `1`, `"id"`, `[1]`, `[[{"id":1,"method":"a"}]]`, `{"id":1`, `{"id":1}x`, `{"id":}`, "{\"id\":\"\xff\"}"} {
		got, err := mcp.RewriteIDs([]byte(text), marked)
		if err == nil {
			t.Errorf("%s became %s", text, got)
		}
	}
}

// Whatever is rewritten is JSON of the same shape, and with the same ids the same text.
func FuzzRewriteIDs(f *testing.F) {
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":7,"method":"ping"}`, `[{"id":"a\"b","result":1.50},{"id":12345678901234567890,"error":{}}]`,
		`{"method":"notifications/cancelled","params":{"requestId":"\ud83d\ude00\\"}}`, `{"id":-0,"id":null}`, ` [ ] `, `{"method":"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		same, err := mcp.RewriteIDs(text, func(_ mcp.IDRole, id mcp.ID) (mcp.ID, bool) { return id, true })
		if err != nil {
			return
		}
		if !bytes.Equal(same, text) {
			t.Fatalf("%q became %q without a change", text, same)
		}
		changed, err := mcp.RewriteIDs(text, func(_ mcp.IDRole, _ mcp.ID) (mcp.ID, bool) { return `"shadowcat"`, true })
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(changed) {
			t.Fatalf("%q became %q, which is no JSON", text, changed)
		}
		// What has been replaced once is found at the same places again.
		again, err := mcp.RewriteIDs(changed, func(mcp.IDRole, mcp.ID) (mcp.ID, bool) { return `"shadowcat"`, true })
		if err != nil || !bytes.Equal(again, changed) {
			t.Fatalf("%q became %q, %v", changed, again, err)
		}
		if _, err := mcp.RewriteIDs(text, func(mcp.IDRole, mcp.ID) (mcp.ID, bool) { return "", false }); err != nil {
			t.Fatal(err)
		}
	})
}
