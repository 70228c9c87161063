package mcp_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

const (
	modernMeta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`
	callTool   = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get weather",` + modernMeta + `}}`
)

// modern are the headers of a request of 2026-07-28; name may be empty.
func modern(method, name string) http.Header {
	h := http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {method}}
	if name != "" {
		h.Set("Mcp-Name", name)
	}
	return h
}

// changed returns a header with one field set, or left out without values.
func changed(h http.Header, name string, values ...string) http.Header {
	if h.Del(name); len(values) > 0 {
		h[name] = values
	}
	return h
}

// named returns the request with another name.
func named(name string) string { return strings.Replace(callTool, `"get weather"`, name, 1) }

func TestHeadersOfTheStatelessEraSayWhatTheBodySays(t *testing.T) {
	t.Parallel()
	request := func(method, params string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{` + params + modernMeta + `}}`
	}
	later := strings.Replace(request("x/y", ""), "2026-07-28", "2030-01-01", 1)
	tests := []struct {
		name, body string
		header     http.Header
		code       int    // 0: it passes
		reason     string // part of it
	}{
		{"tool", callTool, modern("tools/call", "get weather"), 0, ""},
		{"prompt", request("prompts/get", `"name":"p",`), modern("prompts/get", "p"), 0, ""},
		{"resource", request("resources/read", `"uri":"file:///a?b=c","name":"other",`), modern("resources/read", "file:///a?b=c"), 0, ""},
		{"escaped name", named(`"get\u0020weather"`), modern("tools/call", "get weather"), 0, ""},
		{"wrapped name", callTool, modern("tools/call", "=?base64?Z2V0IHdlYXRoZXI=?="), 0, ""},
		{"wrapped Unicode", named(`"Wetter für Köln"`), modern("tools/call", "=?base64?V2V0dGVyIGbDvHIgS8O2bG4=?="), 0, ""},
		{"wrapped wrapping", named(`"=?base64?literal?="`), modern("tools/call", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="), 0, ""},
		{"half a wrapping is none", named(`"=?base64?literal"`), modern("tools/call", "=?base64?literal"), 0, ""},
		{"empty name", named(`""`), changed(modern("tools/call", ""), "Mcp-Name", ""), 0, ""},
		{"nothing to name", request("tools/list", ""), modern("tools/list", ""), 0, ""},
		{"the name that an extension's request has by a key of its own", request("tasks/get", `"taskId":"t",`), modern("tasks/get", "t"), 0, ""},
		{"an empty name where none belongs", request("tools/list", ""), changed(modern("tools/list", ""), "Mcp-Name", ""), 0, ""},
		{"no name in body and header", request("tools/call", ""), modern("tools/call", ""), 0, ""},
		{"name twice where none is looked for", request("tools/list", `"name":1,"name":2,`), modern("tools/list", ""), 0, ""},
		{"notification without anything", `{"jsonrpc":"2.0","method":"n"}`, http.Header{"Mcp-Protocol-Version": {"2026-07-28"}}, 0, ""},
		{"a later version", later, http.Header{"Mcp-Protocol-Version": {"2030-01-01"}}, mcp.CodeUnsupportedVersion, "2025-11-25, 2026-07-28"},
		{"a later version in the header alone", `{"jsonrpc":"2.0","id":1,"method":"x"}`, http.Header{"Mcp-Protocol-Version": {"2030-01-01"}}, mcp.CodeUnsupportedVersion, "supported"},
		{"initialize", request("initialize", `"protocolVersion":"2025-11-25",`), modern("initialize", ""), mcp.CodeMethodNotFound, "server/discover"},
		{"initialize under another name", request("initialize", ""), modern("tools/list", ""), mcp.CodeHeaderMismatch, "Mcp-Method differs"},

		{"no version header", callTool, changed(modern("tools/call", "get weather"), "Mcp-Protocol-Version"), mcp.CodeHeaderMismatch, "MCP-Protocol-Version is missing"},
		{"version header of the other era", callTool, changed(modern("tools/call", "get weather"), "Mcp-Protocol-Version", "2025-11-25"), mcp.CodeHeaderMismatch, "MCP-Protocol-Version differs"},
		{"two version headers", callTool, changed(modern("tools/call", "get weather"), "Mcp-Protocol-Version", "2026-07-28", "2026-07-28"), mcp.CodeHeaderMismatch, "more than once"},
		{"another later version", later, http.Header{"Mcp-Protocol-Version": {"2030-01-02"}}, mcp.CodeHeaderMismatch, "differs"},
		{"no method header", callTool, changed(modern("tools/call", "get weather"), "Mcp-Method"), mcp.CodeHeaderMismatch, "Mcp-Method is missing"},
		{"another method", callTool, modern("tools/list", "get weather"), mcp.CodeHeaderMismatch, "Mcp-Method differs"},
		{"method in another case", callTool, modern("Tools/call", "get weather"), mcp.CodeHeaderMismatch, "Mcp-Method differs"},
		{"two method headers", callTool, changed(modern("tools/call", "get weather"), "Mcp-Method", "tools/call", "tools/list"), mcp.CodeHeaderMismatch, "Mcp-Method is there more than once"},
		{"another method of a notification", `{"jsonrpc":"2.0","method":"n"}`, modern("m", ""), mcp.CodeHeaderMismatch, "Mcp-Method differs"},
		{"no name header", callTool, modern("tools/call", ""), mcp.CodeHeaderMismatch, "Mcp-Name is missing"},
		{"another name", callTool, modern("tools/call", "delete everything"), mcp.CodeHeaderMismatch, "Mcp-Name differs"},
		{"another wrapped name", callTool, modern("tools/call", "=?base64?ZGVsZXRl?="), mcp.CodeHeaderMismatch, "Mcp-Name differs"},
		{"wrapping in another case", callTool, modern("tools/call", "=?BASE64?Z2V0IHdlYXRoZXI=?="), mcp.CodeHeaderMismatch, "Mcp-Name differs"},
		{"wrapping that is broken", callTool, modern("tools/call", "=?base64?Z2V0IHdlYXRoZXI?="), mcp.CodeHeaderMismatch, "Mcp-Name is malformed"},
		{"a name that is not wrapped", named(`"für"`), modern("tools/call", "für"), mcp.CodeHeaderMismatch, "Mcp-Name is malformed"},
		{"two names", callTool, changed(modern("tools/call", ""), "Mcp-Name", "get weather", "x"), mcp.CodeHeaderMismatch, "Mcp-Name is there more than once"},
		{"a name that only the header has", request("tools/call", ""), modern("tools/call", "x"), mcp.CodeHeaderMismatch, "Mcp-Name differs"},
		{"a name where none belongs", request("tools/list", ""), modern("tools/list", "x"), mcp.CodeHeaderMismatch, "Mcp-Name is there"},
		{"a wrapped name where none belongs", request("server/discover", ""), modern("server/discover", "=?base64?Z2V0?="), mcp.CodeHeaderMismatch, "Mcp-Name is there"},
		{"a name where none belongs, that the body has, too", request("prompts/list", `"name":"x",`), modern("prompts/list", "x"), mcp.CodeHeaderMismatch, "Mcp-Name is there"},
		{"two names of an extension's request", request("tasks/get", ""), changed(modern("tasks/get", ""), "Mcp-Name", "x", "y"), mcp.CodeHeaderMismatch, "Mcp-Name is there more than once"},
		{"a malformed name of an extension's request", request("tasks/get", ""), modern("tasks/get", "für"), mcp.CodeHeaderMismatch, "Mcp-Name is malformed"},
		{"a malformed name of a notification", `{"jsonrpc":"2.0","method":"n"}`, modern("n", "für"), mcp.CodeHeaderMismatch, "Mcp-Name is malformed"},
		{"a name that is a number", named(`5`), modern("tools/call", "5"), mcp.CodeHeaderMismatch, "Mcp-Name differs"},
		{"the name of a resource", request("resources/read", `"name":"x",`), modern("resources/read", "x"), mcp.CodeHeaderMismatch, "Mcp-Name differs"},
		{"name twice", named(`"get weather","name":"x"`), modern("tools/call", "get weather"), mcp.CodeInvalidRequest, "twice"},
		{"name in two cases", named(`"get weather","Name":"x"`), modern("tools/call", "get weather"), mcp.CodeInvalidRequest, "case"},
		{"no version in the body", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, modern("tools/list", ""), mcp.CodeInvalidParams, "protocolVersion"},
		{"no capabilities", strings.Replace(callTool, "Capabilities\":{}", "Other\":{}", 1), modern("tools/call", "get weather"), mcp.CodeInvalidParams, "clientCapabilities"},
		{"capabilities that are none", strings.Replace(callTool, "Capabilities\":{}", "Capabilities\":[]", 1), modern("tools/call", "get weather"), mcp.CodeInvalidParams, "clientCapabilities"},
		{"batch", "[" + callTool + "]", modern("tools/call", "get weather"), mcp.CodeInvalidRequest, "batches"},
		{"response", `{"jsonrpc":"2.0","id":1,"result":{}}`, modern("tools/call", ""), mcp.CodeInvalidRequest, "responses"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := mcp.Peek([]byte(tt.body))
			if err == nil {
				err = mcp.CheckStateless(tt.header, m)
			}
			invalid, isInvalid := errors.AsType[*mcp.MessageError](err)
			switch {
			case tt.code == 0 && err != nil:
				t.Errorf("refused: %v", err)
			case tt.code != 0 && !isInvalid:
				t.Errorf("error %v, want a MessageError", err)
			case tt.code != 0 && (invalid.Code != tt.code || !strings.Contains(invalid.Reason, tt.reason)):
				t.Errorf("%d %s, want %d …%s…", invalid.Code, invalid.Reason, tt.code, tt.reason)
			}
		})
	}
}

// In the era with sessions nothing is made of what a request is for, and nothing is refused for it.
func TestTheEraWithSessionsHasNoTargets(t *testing.T) {
	t.Parallel()
	got, err := mcp.Peek([]byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b","name":"c"}}`))
	if err != nil || got.HasTarget || got.Target != "" {
		t.Errorf("Peek = %+v, %v", got, err)
	}
}

func FuzzCheckStateless(f *testing.F) {
	f.Add([]byte(callTool), "tools/call", "get weather")
	f.Add([]byte(callTool), "tools/call", "=?base64?Z2V0IHdlYXRoZXI=?=")
	f.Fuzz(func(t *testing.T, body []byte, method, name string) {
		m, err := mcp.Peek(body)
		if err != nil {
			return
		}
		header := modern(method, name)
		if err := mcp.CheckStateless(header, m); err == nil && m.Kind == mcp.KindRequest && m.MetaVersion == mcp.Revision20260728 && m.Method != method {
			t.Errorf("the method %q passes as %q", m.Method, method)
		}
	})
}
