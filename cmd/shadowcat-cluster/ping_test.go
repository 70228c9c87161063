package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

func TestPingOpensUsesAndEndsASession(t *testing.T) {
	t.Parallel()
	redis := newStore(t)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		message, err := mcp.Peek(body)
		if err != nil || message.Kind != mcp.KindRequest {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25"}}`, message.ID)
	}))
	t.Cleanup(up.Close)
	s := startServe(t, "--redis", redis, "--upstream", up.URL+"/mcp")
	s.waitReady(http.StatusOK)
	out := command(t, "ping", s.address+"/mcp", "--count", "3")
	for _, step := range []string{"initialize ", "notifications/initialized ", "ping 3 ", "end "} {
		if !strings.Contains(out, "\n"+step) && !strings.HasPrefix(out, step) {
			t.Errorf("it says nothing of %q:\n%s", step, out)
		}
	}
	if list := command(t, "session", "list", "--redis", redis, "--status", "closed", "--output", "json"); strings.Count(list, `"closed"`) != 1 {
		t.Errorf("want one session, and closed: %s", list)
	}
	refused(t, "the server let a client in", "ping", s.address+"/mcp", "--expect-refusal")
}

func TestPingSaysWhatDidNotWork(t *testing.T) {
	t.Parallel()
	answers := map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) },
		"an error": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no such revision"}}`))
		},
		"no session": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte("data\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"protocolVersion\":\"2025-11-25\"}}\n\n"))
		},
		"a stream without a response": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/event-stream") },
		"a page":                      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
	}
	for name, want := range map[string]string{
		"500": `initialize: the server answered 500 Internal Server Error: "broken"`, "an error": "no such revision",
		"no session": "opened no session", "a stream without a response": "without a response", "a page": "no JSON-RPC message",
	} {
		server := httptest.NewServer(answers[name])
		t.Cleanup(server.Close)
		refused(t, want, "ping", server.URL)
	}
	wantsToken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(wantsToken.Close)
	refused(t, "401", "ping", wantsToken.URL)
	command(t, "ping", wantsToken.URL, "--expect-refusal")
}

// refused runs a command that must fail, and say so.
func refused(t *testing.T, want string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), programName, args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %v, want a failure that says %q:\n%s", args, err, want, out)
	}
}
