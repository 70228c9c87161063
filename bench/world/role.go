// Package world is what the measurements happen in: servers, sessions and upstreams.
package world

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/integration/process"
)

// A role is a process of its own, this program again, so that its garbage and its threads are not those of the load.
const (
	roleUpstream = "upstream"
	roleBare     = "bare"
	// roleVariable is the environment variable that names the role.
	roleVariable = "SHADOWCAT_BENCH_ROLE"
)

// Play plays a role if this process was started for one, and never returns then.
func Play() {
	role := os.Getenv(roleVariable)
	if role == "" {
		return
	}
	if err := play(role, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench: the role %s: %v\n", role, err)
	}
	os.Exit(1) //nolint:revive // a role ends with whoever started it
}

func play(role string, args []string) error {
	var handler http.Handler
	switch {
	case role == roleUpstream && len(args) == 1:
		handler = Answer()
	case role == roleBare && len(args) == 2:
		target, err := url.Parse(args[1])
		if err != nil {
			return err
		}
		handler = Bare(target)
	default:
		return fmt.Errorf("unknown, with the arguments %q", args)
	}
	server := &http.Server{Addr: args[0], Handler: handler, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

// Bare is the proxy to compare with: the standard library's, with connections to spare. Beyond that it has full duplex switched on: without
// it net/http's server closes a request's body as soon as the answer begins. On a busy machine the transport has sent the body by then, but has
// not yet looked whether there is more of it than was announced; it fails to, closes its connection, and an answer that has not ended is broken
// off. A test does that to one request after the other.
func Bare(target *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// startRole starts this program in a role and waits until it listens. The caller must kill the process.
func startRole(ctx context.Context, role string, args ...string) (address string, started *process.Process, err error) {
	if address, err = process.FreeAddress(); err != nil {
		return "", nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	started, err = process.Start(process.Command{
		Name: role, Path: self, Args: append([]string{address}, args...), Env: append(os.Environ(), roleVariable+"="+role),
	})
	if err != nil {
		return "", nil, err
	}
	if err := started.WaitReady(ctx, process.Listening(address)); err != nil {
		started.Kill()
		return "", nil, err
	}
	return address, started, nil
}

// The upstream's session id, and its answers.
const (
	UpstreamSession = "0123456789ABCDEFGHIJKLMNOP"

	initialized = `{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}}`
	result      = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"It is sunny, and 21 degrees."}]}}`
)

// Kind is one kind of call to the upstream.
type Kind struct {
	// SSE asks for the answer as a stream of one event.
	SSE bool
	// Delay is for how long the upstream waits before it answers: 0 or 10 ms.
	Delay time.Duration
}

// delay is the one that Kind.Delay may have.
const delay = 10 * time.Millisecond

// Body is the message that asks for it.
func (k Kind) Body() string {
	tool, wait := "json", "now"
	if k.SSE {
		tool = "sse"
	}
	if k.Delay > 0 {
		wait = "later"
	}
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":{"when":"` + wait + `","city":"Freiburg"}}}`
}

// Answer is the upstream.
func Answer() http.Handler { return http.HandlerFunc(answer) }

func answer(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet: // a stream on which nothing happens
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	case http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if bytes.Contains(body, []byte(`"later"`)) && measure.Wait(r.Context(), delay) != nil {
		return
	}
	w.Header().Set("Mcp-Session-Id", UpstreamSession)
	switch {
	case bytes.Contains(body, []byte(`"initialize"`)):
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, initialized)
	case bytes.Contains(body, []byte(`"sse"`)):
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "event: message\ndata: "+result+"\n\n")
		_ = http.NewResponseController(w).Flush()
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, result)
	}
}
