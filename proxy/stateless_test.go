package proxy_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// Somebody on the way may decide by the headers, so they must say what the body says: what does not fit is refused at every replica, with
// the protocol's own codes, and no upstream hears of it.
func TestStatelessRequestsThatDoNotFitTheirHeadersAreRefused(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	f := newFleet(t, u.url)
	replicas := []*replica{f.replica(), f.replica(), f.replica()}
	_ = f.embedded.Close() // no store is asked
	for _, r := range replicas {
		list, call := stateless(r.url, "tools/list", ""), stateless(r.url, "tools/call", `"name":"x"`).with("Mcp-Name", "x")
		batch := list
		batch.body = "[" + list.body + "]"
		response, rubbish, bare := list, list, list
		response.body, rubbish.body, bare.body = `{"jsonrpc":"2.0","id":7,"result":{}}`, "{", `{"jsonrpc":"2.0","id":7,"method":"tools/list"}`
		for name, tt := range map[string]struct {
			request request
			code    int
			id      string
		}{
			"another method":          {list.with("Mcp-Method", "ping"), mcp.CodeHeaderMismatch, "7"},
			"no method":               {list.with("Mcp-Method", ""), mcp.CodeHeaderMismatch, "7"},
			"another name":            {call.with("Mcp-Name", "y"), mcp.CodeHeaderMismatch, "7"},
			"no name":                 {call.with("Mcp-Name", ""), mcp.CodeHeaderMismatch, "7"},
			"the other era's version": {list.with("Mcp-Protocol-Version", "2025-11-25"), mcp.CodeHeaderMismatch, "7"},
			"no version":              {list.with("Mcp-Protocol-Version", ""), mcp.CodeHeaderMismatch, "7"},
			"no _meta":                {bare, mcp.CodeInvalidParams, "7"},
			"initialize":              {post(r.url, "", initializeBody).with("Mcp-Protocol-Version", "2026-07-28"), mcp.CodeInvalidParams, `"init"`},
			"a batch":                 {batch, mcp.CodeInvalidRequest, ""},
			"a response":              {response, mcp.CodeInvalidRequest, ""},
			"rubbish":                 {rubbish, mcp.CodeParseError, ""},
		} {
			got := tt.request.send(t)
			if p := got.problem(); got.status != http.StatusBadRequest || p.Error.Code != tt.code || string(p.ID) != tt.id {
				t.Errorf("%s: %d %s, want 400 with code %d and id %s", name, got.status, got.body, tt.code, tt.id)
			}
		}
	}
	if got := len(u.requests()); got != 0 {
		t.Errorf("the upstream got %d of them", got)
	}
}

// Versions are agreed on by refusing: a client whose version is not known here hears which are, and takes one of them. That holds for
// versions to come, and for what will never be one.
func TestAnUnknownVersionOfTheEraWithoutSessionsIsAnsweredWithTheKnownOnes(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	f := newFleet(t, u.url)
	r := f.replica()
	_ = f.embedded.Close() // no store is asked
	long := strings.Repeat("x", 200)
	for version, told := range map[string]string{"2031-01-01": "2031-01-01", "DRAFT-2027-v1": "DRAFT-2027-v1", "x": "x", long: long[:64]} {
		for _, method := range []string{"tools/list", "initialize", "server/discover"} {
			request := stateless(r.url, method, "").with("Mcp-Protocol-Version", version)
			request.body = strings.Replace(request.body, "2026-07-28", version, 1)
			got := request.send(t)
			var p struct {
				ID    int `json:"id"`
				Error struct {
					Code int `json:"code"`
					Data struct {
						Supported []string `json:"supported"`
						Requested string   `json:"requested"`
					} `json:"data"`
				} `json:"error"`
			}
			if err := json.Unmarshal([]byte(got.body), &p); err != nil {
				t.Fatalf("%v: %s", err, got.body)
			}
			if got.status != http.StatusBadRequest || p.ID != 7 || p.Error.Code != -32022 || p.Error.Data.Requested != told ||
				!slices.Equal(p.Error.Data.Supported, []string{"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"}) {
				t.Errorf("%s of %.20s: %d %s", method, version, got.status, got.body)
			}
		}
	}
	if got := len(u.requests()); got != 0 {
		t.Errorf("the upstream got %d of them", got)
	}
}

// There is no initialize in the era without sessions. Passed on, it would open sessions at an upstream that has some, which nobody counts
// and nobody ends.
func TestInitializeIsNoMethodOfTheEraWithoutSessions(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica()
	got := stateless(r.url, "initialize", `"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}`).send(t)
	if p := got.problem(); got.status != http.StatusNotFound || p.Error.Code != mcp.CodeMethodNotFound || string(p.ID) != "7" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := len(u.requests()); got != 0 {
		t.Errorf("the upstream got %d of them", got)
	}
}

// Both media types are the transport's demand in both eras.
func TestStatelessRequestsOfAnotherMediaTypeAreRefused(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, nil)
	r := newFleet(t, u.url).replica()
	list := stateless(r.url, "tools/list", "")
	for name, tt := range map[string]struct {
		request request
		status  int
	}{
		"text":          {list.with("Content-Type", "text/plain"), http.StatusUnsupportedMediaType},
		"no type":       {list.with("Content-Type", ""), http.StatusUnsupportedMediaType},
		"wants HTML":    {list.with("Accept", "text/html"), http.StatusNotAcceptable},
		"wants no JSON": {list.with("Accept", "text/event-stream"), http.StatusNotAcceptable},
		"wants nothing": {list.with("Accept", ""), http.StatusNotAcceptable},
	} {
		if got := tt.request.send(t); got.status != tt.status || got.problem().Error.Code != 1000+tt.status {
			t.Errorf("%s: %d %s, want %d", name, got.status, got.body, tt.status)
		}
	}
	if got := len(u.requests()); got != 0 {
		t.Errorf("the upstream got %d of them", got)
	}
}

// In the era without sessions that the client leaves is the cancellation, before the answer and in the middle of it.
func TestAClientThatLeavesCancelsItsStatelessRequest(t *testing.T) {
	t.Parallel()
	arrived, canceled := make(chan struct{}, 3), make(chan struct{}, 3)
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
		if strings.Contains(got.body, "begins") {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: "+progress(1)+"\n\n")
			flush(w)
		}
		arrived <- struct{}{}
		<-r.Context().Done()
		canceled <- struct{}{}
		return true
	})
	r := newFleet(t, u.url).replica()
	s := stateless(r.url, "tools/call", `"name":"begins"`).with("Mcp-Name", "begins").stream(t)
	s.wants(progress(1))
	receive(t, "the request that is answered", arrived)
	s.drop()
	receive(t, "the end of the one whose stream was closed", canceled)

	ctx, leave := context.WithCancel(t.Context())
	q := stateless(r.url, "tools/call", `"name":"waits"`).with("Mcp-Name", "waits")
	left := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, q.method, q.url, strings.NewReader(q.body))
		if err != nil {
			left <- err
			return
		}
		req.Header = q.header
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err == nil {
			_ = res.Body.Close()
		}
		left <- nil
	}()
	receive(t, "the request that waits", arrived)
	leave()
	receive(t, "the end of the one whose client left", canceled)
	if err := receive(t, "the client to be gone", left); err != nil {
		t.Error(err)
	}
}

// The rate is a principal's over all replicas; who is not known has none, and costs the store nothing.
func TestStatelessRequestsOfAPrincipalAreLimitedOverThreeReplicas(t *testing.T) {
	t.Parallel()
	const rate = 10
	i := newIssuer(t)
	u := newUpstream(t, nil)
	f := newFleet(t, u.url, func(c *cluster.Config) { c.StatelessRatePerPrincipal = rate })
	asks := asksFor(t, i)
	replicas := []*replica{f.replica(asks), f.replica(asks), f.replica(asks)}
	alice, bob := i.Token("alice"), i.Token("bob")
	begun, served := time.Now(), 0
	for n := range 5 * rate {
		got := stateless(replicas[n%3].url, "tools/list", "").as(alice).send(t)
		p := got.problem()
		switch {
		case got.status == http.StatusOK:
			served++
		case got.status != http.StatusTooManyRequests || p.Error.Code != 1429 || p.Error.Data.Reason != "rate_limited" ||
			p.Error.Data.Limit != "stateless_rate_per_principal" || p.Error.Data.RetryAfterMS < 1 || got.header.Get("Retry-After") == "" || string(p.ID) != "7":
			t.Fatalf("request %d: %d %v %s", n, got.status, got.header, got.body)
		}
	}
	if most := rate + int(rate*time.Since(begun).Seconds()) + 1; served < rate/2 || served > most {
		t.Errorf("%d were served in %v, want %d to %d", served, time.Since(begun), rate/2, most)
	}
	if got := stateless(replicas[0].url, "tools/list", "").as(bob).send(t); got.status != http.StatusOK {
		t.Errorf("somebody else: %d %s", got.status, got.body)
	}
	open := f.replica() // without authentication
	_ = f.embedded.Close()
	for n := range 5 * rate {
		if got := stateless(open.url, "tools/list", "").send(t); got.status != http.StatusOK {
			t.Fatalf("request %d without a principal: %d %s", n, got.status, got.body)
		}
	}
}
