package roundrobin_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/roundrobin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend answers with its name, the Host it was asked for and the body.
func backend(t *testing.T, name string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Mcp-Session-Id", "granted by "+name)
		fmt.Fprintf(w, "%s %s %s", name, r.Host, body)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func start(t *testing.T, backends ...string) *roundrobin.Front {
	t.Helper()
	front, err := roundrobin.Start(backends...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := front.Close(); err != nil {
			t.Error(err)
		}
	})
	return front
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func send(t *testing.T, front *roundrobin.Front, method, body string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, front.URL(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return client.Do(request)
}

func post(t *testing.T, front *roundrobin.Front, body string) string {
	t.Helper()
	response, err := send(t, front, http.MethodPost, body)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestRequestsGoRound(t *testing.T) {
	t.Parallel()
	front := start(t, backend(t, "a"), backend(t, "b"), backend(t, "c"))
	for _, name := range []string{"a", "b", "c", "a", "b"} {
		if got, want := post(t, front, "x"), name+" "+front.Address()+" x"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestABackendThatRefusesIsSkippedWithTheBodyWhole(t *testing.T) {
	t.Parallel()
	dead, err := process.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	front := start(t, dead, backend(t, "b"))
	body := strings.Repeat("x", 1<<20)
	for range 3 {
		if got, want := post(t, front, body), "b "+front.Address()+" "+body; got != want {
			t.Errorf("got %d bytes, want %d from the living backend", len(got), len(want))
		}
	}
	for _, e := range front.Trace() {
		if e.Backend != 1 {
			t.Errorf("the trace says that backend %d served, want 1", e.Backend)
		}
	}
}

func TestABackendThatBreaksOffIsNotReplaced(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(broken.Close)
	front := start(t, broken.Listener.Addr().String(), backend(t, "b"))
	if got := post(t, front, "x"); !strings.Contains(got, "broke off") {
		t.Errorf("got %q, want the front's own refusal", got)
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("the backend was asked %d times, want once", got)
	}
}

func TestWithoutABackendTheConnectionIsClosed(t *testing.T) {
	t.Parallel()
	dead, err := process.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	front := start(t, dead)
	response, err := send(t, front, http.MethodGet, "")
	if err == nil {
		response.Body.Close()
		t.Fatalf("got %s, want a closed connection", response.Status)
	}
	if got := front.Trace(); len(got) != 1 || got[0].Backend != roundrobin.NoBackend {
		t.Errorf("got the trace %+v, want one request that no backend took", got)
	}
}

func TestTraceTellsWhatWentWhere(t *testing.T) {
	t.Parallel()
	front := start(t, backend(t, "a"), backend(t, "b"))
	post(t, front, `{"jsonrpc":"2.0","id":"1","method":"ping"}`)
	post(t, front, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	post(t, front, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	trace := front.Trace()
	want := []roundrobin.Exchange{
		{HTTPMethod: "POST", RPCMethod: "ping", RPCID: `"1"`, Backend: 0, Status: 200, GrantedSessionID: "granted by a"},
		{HTTPMethod: "POST", RPCID: "1", Backend: 1, Status: 200, GrantedSessionID: "granted by b"},
		{HTTPMethod: "POST", RPCMethod: "notifications/initialized", Backend: 0, Status: 200, GrantedSessionID: "granted by a"},
	}
	if !slices.Equal(trace, want) {
		t.Errorf("got %+v, want %+v", trace, want)
	}
	if trace[0].IsAnswer() || !trace[1].IsAnswer() || trace[2].IsAnswer() {
		t.Error("only the second is the answer of a client")
	}
}
