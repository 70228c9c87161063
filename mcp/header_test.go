package mcp_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

func TestAcceptsWhatTheHeaderLists(t *testing.T) {
	t.Parallel()
	tests := []struct {
		accept       []string
		json, stream bool
	}{
		{nil, false, false},
		{[]string{""}, false, false},
		{[]string{"application/json, text/event-stream"}, true, true},
		{[]string{"application/json", "text/event-stream"}, true, true},
		{[]string{"Application/JSON;q=0.5 ,text/*"}, true, true},
		{[]string{"*/*"}, true, true},
		{[]string{"application/*"}, true, false},
		{[]string{"text/event-stream"}, false, true},
		{[]string{"application/json, text/event-stream;q=0"}, true, false},
		{[]string{"application/json, text/event-stream; q=0.000"}, true, false},
		{[]string{"application/jsonx, text/plain"}, false, false},
	}
	for _, tt := range tests {
		gotJSON, gotStream := mcp.Accepts(http.Header{"Accept": tt.accept})
		if gotJSON != tt.json || gotStream != tt.stream {
			t.Errorf("Accepts(%q) = %v, %v; want %v, %v", tt.accept, gotJSON, gotStream, tt.json, tt.stream)
		}
	}
}

func TestIsMediaTypeIgnoresParametersAndCase(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		"application/json": true, "Application/Json; charset=utf-8": true,
		"": false, "text/plain": false, "application/json-rpc": false, "application/json; =": false,
	} {
		if got := mcp.IsMediaType(value, mcp.MediaTypeJSON); got != want {
			t.Errorf("IsMediaType(%q) = %v, want %v", value, got, want)
		}
	}
}

func TestEraIsDecidedByValues(t *testing.T) {
	t.Parallel()
	tests := []struct {
		header, meta string
		want         mcp.Era
	}{
		{"", "", mcp.EraSession},
		{"2025-06-18", "", mcp.EraSession},
		{"2024-11-05", "", mcp.EraSession},
		{"2026-07-28", "", mcp.EraStateless},
		{"2031-01-01", "", mcp.EraStateless},
		{"", "2026-07-28", mcp.EraStateless},
		{"", "draft", mcp.EraStateless},
		{"2025-11-25", "2026-07-28", mcp.EraStateless},
		{"2026-07-28", "2025-11-25", mcp.EraStateless},
		{"2025-11-25", "2025-11-25", mcp.EraSession},
		{"2025-01-01", "", mcp.EraUnknown},
		{"2026-07-27", "", mcp.EraUnknown},
		{"banana", "", mcp.EraUnknown},
		{"2026-07-28 ", "", mcp.EraUnknown},
		{"2026.07.28", "", mcp.EraUnknown},
		{"2026-o7-28", "", mcp.EraUnknown},
	}
	for _, tt := range tests {
		if got := mcp.EraOf(tt.header, tt.meta); got != tt.want {
			t.Errorf("EraOf(%q, %q) = %v, want %v", tt.header, tt.meta, got, tt.want)
		}
	}
}

func TestBatchesEndedWith20250618(t *testing.T) {
	t.Parallel()
	for _, revision := range mcp.SessionRevisions() {
		if got, want := mcp.AllowsBatch(revision), revision < mcp.Revision20250618; got != want {
			t.Errorf("AllowsBatch(%s) = %v, want %v", revision, got, want)
		}
	}
	if mcp.AllowsBatch("") || mcp.HasSessions(mcp.Revision20260728) {
		t.Error("an unknown or stateless revision has what only old ones have")
	}
}

func TestMethodLabelsAreFew(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]string{"": "", "tools/call": "tools/call", "x/y": "other", "Initialize": "other"} {
		if got := mcp.MethodLabel(method); got != want {
			t.Errorf("MethodLabel(%q) = %q, want %q", method, got, want)
		}
	}
}

func TestEncodeErrorKeepsTheTypedID(t *testing.T) {
	t.Parallel()
	e := mcp.Error{Code: mcp.HTTPCode(429), Message: "slow <down>", Reason: mcp.ReasonRateLimited, Limit: "request_rate", RetryAfter: 1500 * time.Microsecond}
	want := `{"jsonrpc":"2.0","id":"1","error":{"code":1429,"message":"slow \u003cdown\u003e","data":{"reason":"rate_limited","limit":"request_rate","retry_after_ms":2}}}`
	if got := string(mcp.EncodeError(`"1"`, e)); got != want {
		t.Errorf("with a string id:\n%s\nwant\n%s", got, want)
	}
	e = mcp.Error{Code: mcp.CodeUnsupportedVersion, Message: "m", Supported: []string{"a", "b"}, Requested: "c"}
	want = `{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"m","data":{"supported":["a","b"],"requested":"c"}}}`
	if got := string(mcp.EncodeError("1", e)); got != want {
		t.Errorf("with versions:\n%s\nwant\n%s", got, want)
	}
	want = `{"jsonrpc":"2.0","error":{"code":-32700,"message":"m"}}`
	if got := string(mcp.EncodeError("", mcp.Error{Code: mcp.CodeParseError, Message: "m"})); got != want {
		t.Errorf("without id:\n%s\nwant\n%s", got, want)
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add("application/json;q=1, text/event-stream")
	f.Add("content-type,mcp-session-id , authorization")
	f.Add("*/*;q=0,;;=,\x00")
	f.Fuzz(func(t *testing.T, value string) {
		mcp.Accepts(http.Header{"Accept": {value}})
		mcp.IsMediaType(value, mcp.MediaTypeJSON)
		mcp.EraOf(value, value)
		if mcp.ValidHeaderNames(value) && strings.ContainsAny(value, "\r\n\x00:") {
			t.Errorf("ValidHeaderNames(%q)", value)
		}
		if mcp.ValidSessionID(value) && strings.ContainsAny(value, "\r\n\x00 \u00e9") {
			t.Errorf("ValidSessionID(%q)", value)
		}
		if !json.Valid(mcp.EncodeError("", mcp.Error{Message: value})) {
			t.Errorf("EncodeError(%q)", value)
		}
	})
}
