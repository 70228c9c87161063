package mcp_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

func TestPeekTellsTheTraceOfAMessage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ meta, parent, state string }{
		"as it is written":    {`"tracestate":"a=b\u0031","traceparent":"00-x"`, "00-x", "a=b1"},
		"the longest":         {`"tracestate":"` + strings.Repeat("0", 512) + `"`, "", strings.Repeat("0", 512)},
		"not what is longer":  {`"traceparent":"` + strings.Repeat("0", 513) + `"`, "", ""},
		"not what is no text": {`"traceparent":null,"tracestate":2`, "", ""},
		"the first of two":    {`"traceparent":"1","traceparent":"2"`, "1", ""},
		"in lower case":       {`"Traceparent":"1"`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := mcp.Peek([]byte(`{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{` + test.meta + `}}}`))
			if err != nil || got.TraceParent != test.parent || got.TraceState != test.state {
				t.Errorf("parent %q, state %q, %v", got.TraceParent, got.TraceState, err)
			}
		})
	}
}

func TestPeekTellsWhatAMessageIs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		want       mcp.Message
	}{
		{
			"request", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}`,
			mcp.Message{Kind: mcp.KindRequest, Method: "tools/call", ID: "7"},
		},
		{
			"string id", `{"jsonrpc":"2.0","id":"7","method":"ping"}`,
			mcp.Message{Kind: mcp.KindRequest, Method: "ping", ID: `"7"`},
		},
		{
			"escaped id has the form of the plain one", `{"jsonrpc":"2.0","id":"\u0061<","method":"ping"}`,
			mcp.Message{Kind: mcp.KindRequest, Method: "ping", ID: `"a<"`},
		},
		{
			"huge integer id", `{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"ping"}`,
			mcp.Message{Kind: mcp.KindRequest, Method: "ping", ID: "123456789012345678901234567890"},
		},
		{
			"escaped key", `{"jsonrpc":"2.0","id":1,"me\u0074hod":"ping"}`,
			mcp.Message{Kind: mcp.KindRequest, Method: "ping", ID: "1"},
		},
		{
			"notification", ` {"method":"notifications/initialized","jsonrpc":"2.0"} `,
			mcp.Message{Kind: mcp.KindNotification, Method: "notifications/initialized"},
		},
		{
			"initialize, keys in any order", `{"params":{"clientInfo":{"version":"1","name":"c"},"protocolVersion":"2025-06-18","capabilities":{}},"method":"initialize","id":0,"jsonrpc":"2.0"}`,
			mcp.Message{Kind: mcp.KindRequest, Method: "initialize", ID: "0", Version: "2025-06-18", ClientName: "c", ClientVersion: "1", Initializes: true},
		},
		{
			"era", `{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`,
			mcp.Message{Kind: mcp.KindRequest, Method: "server/discover", ID: "1", MetaVersion: "2026-07-28"},
		},
		{
			"era that is no string", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":5}}}`,
			mcp.Message{Kind: mcp.KindRequest, Method: "ping", ID: "1", MetaVersion: "5"},
		},
		{
			"result", `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}`,
			mcp.Message{Kind: mcp.KindResponse, ID: "1", Version: "2025-11-25"},
		},
		{
			"error", `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}`,
			mcp.Message{Kind: mcp.KindResponse, ID: "1", Failed: true},
		},
		{
			"error without id", `{"jsonrpc":"2.0","id":null,"error":{}}`,
			mcp.Message{Kind: mcp.KindResponse, Failed: true},
		},
		{
			"params that are no object", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":[{"protocolVersion":"x"}]}`,
			mcp.Message{Kind: mcp.KindRequest, Method: "initialize", ID: "1", Initializes: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := mcp.Peek([]byte(tt.body))
			if err != nil {
				t.Fatalf("Peek: %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Peek (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPeekTellsWhatABatchHolds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		want       mcp.Message
	}{
		{
			"two", `[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","id":1,"method":"b"}]`,
			mcp.Message{Kind: mcp.KindBatch, BatchLen: 2, Requests: 1},
		},
		{
			"ids that only look alike", `[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":"1","method":"b"},{"jsonrpc":"2.0","id":1,"result":{}}]`,
			mcp.Message{Kind: mcp.KindBatch, BatchLen: 3, Requests: 2, Responses: 1},
		},
		{
			"initialize", `[{"jsonrpc":"2.0","id":1,"method":"initialize"}]`,
			mcp.Message{Kind: mcp.KindBatch, BatchLen: 1, Requests: 1, Initializes: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := mcp.Peek([]byte(tt.body))
			if err != nil {
				t.Fatalf("Peek: %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Peek (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPeekRefusesWithACodeAndKeepsTheID(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		code       int
		id         mcp.ID
		reason     string
	}{
		{"empty", "", mcp.CodeParseError, "", "ends in the middle"},
		{"cut short", `{"jsonrpc":"2.0","id":1,"meth`, mcp.CodeParseError, "", "ends in the middle"},
		{"trailing garbage", `{"jsonrpc":"2.0","id":1,"method":"ping"} x`, mcp.CodeParseError, "", "follows"},
		{"two messages", `{"jsonrpc":"2.0","method":"a"}{"jsonrpc":"2.0","method":"b"}`, mcp.CodeParseError, "", "follows"},
		{"invalid UTF-8", "{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}", mcp.CodeParseError, "", "UTF-8"},
		{"deep nesting", strings.Repeat("[", 100_000), mcp.CodeParseError, "", "nested"},
		{"deep params", `{"jsonrpc":"2.0","method":"a","params":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`, mcp.CodeParseError, "", "nested"},
		{"bare line break in a string", "{\"a\":\"\n\"}", mcp.CodeParseError, "", "unexpected"},
		{"no object", `5`, mcp.CodeInvalidRequest, "", "not an object"},
		{"no version", `{"id":5,"method":"ping"}`, mcp.CodeInvalidRequest, "5", "jsonrpc"},
		{"id twice", `{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}`, mcp.CodeInvalidRequest, "1", "twice"},
		{"method twice", `{"jsonrpc":"2.0","id":1,"method":"ping","method":"initialize"}`, mcp.CodeInvalidRequest, "1", "twice"},
		{"method in two cases", `{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"initialize"}`, mcp.CodeInvalidRequest, "1", "case"},
		{"meta twice", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{},"_meta":{}}}`, mcp.CodeInvalidRequest, "1", "twice"},
		{"neither", `{"jsonrpc":"2.0","id":1}`, mcp.CodeInvalidRequest, "1", "neither"},
		{"both", `{"jsonrpc":"2.0","id":1,"result":1,"error":1}`, mcp.CodeInvalidRequest, "1", "both"},
		{"null id", `{"jsonrpc":"2.0","id":null,"method":"ping"}`, mcp.CodeInvalidRequest, "", "null"},
		{"fraction id", `{"jsonrpc":"2.0","id":1.5,"method":"ping"}`, mcp.CodeInvalidRequest, "", "neither a string nor"},
		{"object id", `{"jsonrpc":"2.0","id":{},"method":"ping"}`, mcp.CodeInvalidRequest, "", "neither a string nor"},
		{"huge id", `{"jsonrpc":"2.0","id":"` + strings.Repeat("x", 5000) + `","method":"ping"}`, mcp.CodeInvalidRequest, "", "longer"},
		{"method that is no string", `{"jsonrpc":"2.0","id":1,"method":5}`, mcp.CodeInvalidRequest, "1", "method"},
		{"empty method", `{"jsonrpc":"2.0","id":1,"method":""}`, mcp.CodeInvalidRequest, "1", "method"},
		{"huge method", `{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("m", 300) + `"}`, mcp.CodeInvalidRequest, "1", "method"},
		{"initialize without id", `{"jsonrpc":"2.0","method":"initialize"}`, mcp.CodeInvalidRequest, "", "id"},
		{"result without id", `{"jsonrpc":"2.0","result":{}}`, mcp.CodeInvalidRequest, "", "no id"},
		{"empty batch", `[]`, mcp.CodeInvalidRequest, "", "empty"},
		{"batch in a batch", `[[]]`, mcp.CodeInvalidRequest, "", "message 1"},
		{"id twice in a batch", `[{"jsonrpc":"2.0","id":"a","method":"x"},{"jsonrpc":"2.0","id":"\u0061","method":"y"}]`, mcp.CodeInvalidRequest, "", "message 2 of the batch: another request in it has the same id"},
		{"huge batch", `[` + strings.Repeat(`{"jsonrpc":"2.0","method":"a"},`, 200) + `{"jsonrpc":"2.0","method":"a"}]`, mcp.CodeInvalidRequest, "", "201"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := mcp.Peek([]byte(tt.body))
			var bad *mcp.MessageError
			if !errors.As(err, &bad) {
				t.Fatalf("Peek error = %v, want a MessageError", err)
			}
			if bad.Code != tt.code || got.ID != tt.id || !strings.Contains(bad.Reason, tt.reason) {
				t.Errorf("Peek = code %d, id %q, reason %q; want %d, %q, …%q…", bad.Code, got.ID, bad.Reason, tt.code, tt.id, tt.reason)
			}
		})
	}
}

func TestPeekDoesNotCopyTheBody(t *testing.T) {
	body := []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"text":"` + strings.Repeat("a", 1<<20) + `"}}}`)
	result := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if _, err := mcp.Peek(body); err != nil {
				b.Fatal(err)
			}
		}
	})
	if got := result.AllocedBytesPerOp(); got > 4096 {
		t.Errorf("Peek of a 1 MiB body allocates %d bytes, want at most 4096", got)
	}
}

func FuzzPeek(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","clientInfo":{"name":"n","version":"v"}}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":"\u0061\ud800","result":{"protocolVersion":"x"}}`))
	f.Add([]byte(`[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","id":-0,"error":[1e5,-0.1,true,null]}]`))
	f.Add([]byte(strings.Repeat(`{"a":[`, 300)))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := mcp.Peek(body)
		var bad *mcp.MessageError
		switch {
		case err == nil:
			if !json.Valid(body) || !utf8.Valid(body) {
				t.Errorf("accepted what is not JSON: %q", body)
			}
		case !errors.As(err, &bad):
			t.Errorf("error is %T", err)
		case bad.Code == mcp.CodeParseError && json.Valid(body) && utf8.Valid(body) && !strings.Contains(bad.Reason, "nested"):
			t.Errorf("%v, but it is: %q", err, body)
		}
		if m.ID != "" && !json.Valid([]byte(m.ID)) {
			t.Errorf("id is not JSON: %q", m.ID)
		}
		if len(m.Method) > 256 || len(m.ClientName) > 256 || len(m.Version) > 256 || len(m.MetaVersion) > 256 {
			t.Errorf("a string is over its bound")
		}
		if !json.Valid(mcp.EncodeError(m.ID, mcp.Error{Code: 1})) {
			t.Errorf("an error answer with id %q is not JSON", m.ID)
		}
	})
}
