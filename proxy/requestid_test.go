package proxy_test

import (
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/proxy"
)

func TestRequestIDReachesUpstreamClientAndLog(t *testing.T) {
	t.Parallel()
	made := regexp.MustCompile(`^[0-9a-f]{16}$`)
	for name, sent := range map[string]struct {
		ids  []string
		want *regexp.Regexp
	}{
		"none":          {nil, made},
		"a client's":    {[]string{"edge-1.eu:Zz_9/+="}, regexp.MustCompile(`^edge-1\.eu:Zz_9/\+=$`)},
		"empty":         {[]string{""}, made},
		"two":           {[]string{"a", "b"}, made},
		"with a space":  {[]string{"a b"}, made},
		"with a quote":  {[]string{`a"b`}, made},
		"not ASCII":     {[]string{"é"}, made},
		"long, not too": {[]string{strings.Repeat("x", 128)}, regexp.MustCompile(`^x{128}$`)},
		"too long":      {[]string{strings.Repeat("x", 129)}, made},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan []string, 1)
			u := newUpstream(t, func(w http.ResponseWriter, r *http.Request, got recorded) bool {
				if got.msg.Method == "ping" {
					seen <- r.Header.Values("X-Request-Id")
					w.Header().Set("X-Request-Id", "the upstream's own")
				}
				return false
			})
			var log logBuffer
			r := newFleet(t, u.url).replica(func(c *proxy.Config) {
				c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			ping := post(r.url, r.openSession(), pingBody)
			if sent.ids != nil {
				ping.header["X-Request-Id"] = sent.ids
			}
			got := ping.send(t)
			ids := got.header.Values("X-Request-Id")
			if len(ids) != 1 || !sent.want.MatchString(ids[0]) {
				t.Fatalf("the client is told %q, want %v", ids, sent.want)
			}
			if told := <-seen; len(told) != 1 || told[0] != ids[0] {
				t.Errorf("the upstream is told %q, the client %q", told, ids[0])
			}
			line := regexp.MustCompile(`msg=request .*request_id="?` + regexp.QuoteMeta(ids[0]) + `"? .*rpc=ping`)
			eventually(t, "the request to be logged", func() bool { return line.MatchString(log.String()) })
		})
	}
}

func TestRefusalsHaveARequestID(t *testing.T) {
	t.Parallel()
	r := newFleet(t, newUpstream(t, nil).url).replica()
	got := post(r.url, "no token", pingBody).with("X-Request-Id", "mine").send(t)
	if got.status != http.StatusNotFound || got.header.Get("X-Request-Id") != "mine" {
		t.Errorf("status %d, request id %q", got.status, got.header.Get("X-Request-Id"))
	}
}
