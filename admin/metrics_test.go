package admin_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

var toolCall = admin.Request{
	Upstream: "files", Era: "session", HTTPMethod: http.MethodPost, RPCMethod: "tools/call", Status: http.StatusOK, Duration: time.Millisecond,
	Refused: mcp.ReasonRateLimited, Limit: "request_rate",
}

func TestCountingARequestCostsNoMemory(t *testing.T) {
	metrics := admin.NewMetrics(admin.Build{})
	metrics.RequestDone(toolCall)
	metrics.CallDone("session_lease", redisstore.CallAnswered, time.Millisecond)
	if n := testing.AllocsPerRun(1000, func() {
		metrics.RequestDone(toolCall)
		metrics.CallDone("session_lease", redisstore.CallAnswered, time.Millisecond)
		metrics.ResumptionDone("resumed")
	}); n != 0 {
		t.Errorf("%v allocations a request, want none", n)
	}
}

func BenchmarkRequestDone(b *testing.B) {
	metrics := admin.NewMetrics(admin.Build{})
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			metrics.RequestDone(toolCall)
		}
	})
}

// Clients, and upstreams, cannot make a replica remember what they invent.
func TestNobodyInventsSeries(t *testing.T) {
	t.Parallel()
	a, metrics := newAdmin(t, &fakeStore{}, nil)
	count := func() int { return strings.Count(get(t, a, "/metrics").Body.String(), "\nshadowcat_") }
	invent := func(i int) {
		odd := fmt.Sprint("odd", i)
		metrics.RequestDone(admin.Request{
			Era: "session", HTTPMethod: odd, RPCMethod: odd, Status: 1000 + i, Refused: mcp.Reason(odd), Limit: odd, Denied: odd,
		})
		metrics.RecoveryDone(odd)
		metrics.ResumptionDone(odd)
		metrics.LeaderChanged(false, odd)
	}
	invent(0)
	before := count()
	for i := range 100 {
		invent(i)
	}
	if after := count(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
	if body := get(t, a, "/metrics").Body.String(); strings.Contains(body, "odd") {
		t.Error("an invented value is exposed")
	}
}

func TestARefusalIsCountedByReasonAndLimit(t *testing.T) {
	t.Parallel()
	a, metrics := newAdmin(t, &fakeStore{}, nil)
	kinds := strings.Count(get(t, a, "/metrics").Body.String(), "\nshadowcat_refusals_total{")
	metrics.RequestDone(toolCall)
	metrics.RequestDone(admin.Request{Refused: mcp.ReasonUpstreamUnavailable, Status: 503})
	metrics.RequestDone(admin.Request{Denied: "expired", Status: 401})
	body := get(t, a, "/metrics").Body.String()
	for _, want := range []string{
		`shadowcat_refusals_total{limit="request_rate",reason="rate_limited"} 1`,
		`shadowcat_refusals_total{limit="none",reason="upstream_unavailable"} 1`,
		`shadowcat_auth_refusals_total{reason="expired"} 1`,
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	// Each is there before it happens, so that its first time is an increase.
	if n := strings.Count(body, "\nshadowcat_refusals_total{"); n != kinds || kinds < len(mcp.Reasons()) {
		t.Errorf("%d kinds of refusals, %d before there was one", n, kinds)
	}
	if want := `shadowcat_refusals_total{limit="max_sessions",reason="capacity"} 0`; !strings.Contains(body, "\n"+want+"\n") {
		t.Errorf("/metrics lacks %s", want)
	}
}

func TestReadinessTellsOfTheIssuersKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		keys := admin.Keys{}
		a, err := admin.New(admin.Config{
			Store: store, Sessions: store, Metrics: admin.NewMetrics(admin.Build{}), Keys: func() admin.Keys { return keys },
		})
		if err != nil {
			t.Fatal(err)
		}
		a.SetServing(true)
		running(t, a)
		down := errors.New("https://login.example/keys: connection refused")
		fetched := time.Now()
		for _, c := range []struct {
			name    string
			keys    admin.Keys
			code    int
			error   string
			metrics string
		}{
			{"not yet", admin.Keys{}, 503, "the issuer's keys have not been fetched yet", "shadowcat_auth_keys_up 0"},
			{"never", admin.Keys{Err: down}, 503, "the issuer's keys could not be fetched: " + down.Error(), "shadowcat_auth_keys_up 0"},
			{"good", admin.Keys{FetchedAt: fetched}, 200, "", "shadowcat_auth_keys_up 1"},
			{"had before", admin.Keys{FetchedAt: fetched, Err: down}, 200, "the issuer's keys could not be fetched: " + down.Error(), "shadowcat_auth_keys_age_seconds 0"},
		} {
			keys = c.keys
			code, body := ready(t, a)
			if check := body.Checks["keys"]; code != c.code || check.Error != c.error || check.OK != (c.code == 200) || (check.Since != nil) != check.OK {
				t.Errorf("%s: %d %+v", c.name, code, body)
			}
			if text := get(t, a, "/metrics").Body.String(); !strings.Contains(text, "\n"+c.metrics+"\n") {
				t.Errorf("%s: /metrics lacks %s", c.name, c.metrics)
			}
		}
	})
}

// A limit that refuses requests is told by its name, so metrics must know it.
func TestEveryLimitThatRefusesIsDocumented(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`\b(?:[lL]imit: *|limit[A-Z]\w* *= *|tooManyCreations\()"([a-z_]+)"`)
	var known []string
	for _, f := range admin.Families() {
		for _, l := range f.Labels {
			if l.Name == "limit" {
				known = l.Values
			}
		}
	}
	found := 0
	for _, folder := range []string{"../cluster", "../redisstore", "../proxy"} {
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, limit := range named.FindAllStringSubmatch(string(text), -1) {
				found++
				if !slices.Contains(known, limit[1]) {
					t.Errorf("%s refuses by %q: add it to refusingLimits", file, limit[1])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no limit was found: is there another way to name one?")
	}
}
