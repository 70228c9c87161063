package auth_test

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// secretFile writes a file that only its owner can read.
func secretFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestUpstreamsGetWhatIsConfigured(t *testing.T) {
	t.Parallel()
	file := secretFile(t, "Basic c2VjcmV0\n")
	both := http.Header{"Authorization": {"Bearer of-the-client"}, "X-Forwarded-User": {"alice"}, "Accept": {"*/*"}}
	only := func(names ...string) http.Header {
		h := http.Header{"Accept": {"*/*"}}
		for _, name := range names {
			h[name] = both[name]
		}
		return h
	}
	replaced := func(names ...string) http.Header {
		h := only(names...)
		h.Set("Authorization", "Basic c2VjcmV0")
		return h
	}
	for _, c := range []struct {
		mode   auth.Mode
		action auth.UpstreamToken
		want   http.Header
	}{
		{auth.ModeNone, "", both},
		{auth.ModeNone, auth.UpstreamPass, both},
		{auth.ModeNone, auth.UpstreamStrip, only("X-Forwarded-User")},
		{auth.ModeNone, auth.UpstreamReplace, replaced("X-Forwarded-User")},
		{auth.ModeJWT, "", only("X-Forwarded-User")},
		{auth.ModeJWT, auth.UpstreamPass, both},
		{auth.ModeJWT, auth.UpstreamStrip, only("X-Forwarded-User")},
		{auth.ModeJWT, auth.UpstreamReplace, replaced("X-Forwarded-User")},
		{auth.ModeHeader, "", both},
		{auth.ModeHeader, auth.UpstreamPass, both},
		{auth.ModeHeader, auth.UpstreamStrip, only()},
		{auth.ModeHeader, auth.UpstreamReplace, replaced()},
	} {
		cfg := map[auth.Mode]auth.Config{
			auth.ModeNone: auth.DefaultConfig(), auth.ModeHeader: headerConfig(t, "10.0.0.0/8"), auth.ModeJWT: jwtConfig(serving("")),
		}[c.mode]
		cfg.UpstreamToken = c.action
		if c.action == auth.UpstreamReplace {
			cfg.UpstreamTokenFile = file
		}
		g, err := auth.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		h := both.Clone()
		if g.Outbound(h); !cmp.Equal(h, c.want) {
			t.Errorf("%s, %q: %v, want %v", c.mode, c.action, h, c.want)
		}
		g.Outbound(h) // of a request that is sent again
		if !cmp.Equal(h, c.want) {
			t.Errorf("%s, %q, twice: %v, want %v", c.mode, c.action, h, c.want)
		}
		// A client can do something about an upstream's challenge only where the upstream gets what the client shows.
		isTheClients := c.want.Get("Authorization") == both.Get("Authorization")
		answer := http.Header{"Www-Authenticate": {`Bearer resource_metadata="https://upstream.example"`}}
		if g.Inbound(answer); len(answer) > 0 != isTheClients {
			t.Errorf("%s, %q: of the upstream's challenge %v comes through", c.mode, c.action, answer)
		}
	}
}

func TestCredentialIsWhatProvesWhoTheClientIs(t *testing.T) {
	t.Parallel()
	request := http.Header{"Authorization": {"Bearer of-the-client"}, "X-Forwarded-User": {"alice"}, "Accept": {"*/*"}}
	for name, c := range map[string]struct {
		gate *auth.Gate
		want http.Header
	}{
		"jwt":    {running(t, jwtConfig(serving(""))), http.Header{"Authorization": {"Bearer of-the-client"}}},
		"header": {running(t, headerConfig(t, "10.0.0.0/8")), http.Header{"Authorization": {"Bearer of-the-client"}, "X-Forwarded-User": {"alice"}}},
		"off":    {auth.Off(), http.Header{"Authorization": {"Bearer of-the-client"}}},
	} {
		if got := c.gate.Credential(request); !cmp.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := c.gate.Credential(http.Header{}); len(got) > 0 {
			t.Errorf("%s: of nothing %v", name, got)
		}
	}
}

func TestUpstreamsGetTheirTokenWithoutAClientsToo(t *testing.T) {
	t.Parallel()
	cfg := auth.DefaultConfig()
	cfg.UpstreamToken, cfg.UpstreamTokenFile = auth.UpstreamReplace, secretFile(t, "  just-a-token\r\n")
	h := http.Header{}
	if running(t, cfg).Outbound(h); h.Get("Authorization") != "Bearer just-a-token" {
		t.Errorf("the header is %v", h)
	}
}

func TestLookalikesOfTheTrustedHeaderDoNotReachUpstreams(t *testing.T) {
	t.Parallel()
	h := http.Header{"X-Forwarded-User": {"alice"}, "X_forwarded_user": {"mallory"}, "X-Forwarded_user": {"mallory"}, "X_other": {"kept"}}
	running(t, headerConfig(t, "10.0.0.0/8")).Outbound(h)
	if want := (http.Header{"X-Forwarded-User": {"alice"}, "X_other": {"kept"}}); !cmp.Equal(h, want) {
		t.Errorf("the header is %v, want %v", h, want)
	}
}

func TestFileOfTheUpstreamsTokenIsReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		cfg := auth.DefaultConfig()
		cfg.UpstreamToken, cfg.UpstreamTokenFile = auth.UpstreamReplace, secretFile(t, "hidden-first")
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		g := running(t, cfg)
		wantAfter := func(content, want string) {
			t.Helper()
			if err := os.WriteFile(cfg.UpstreamTokenFile, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(31 * time.Second)
			h := http.Header{}
			if g.Outbound(h); h.Get("Authorization") != want {
				t.Errorf("the header is %v, want %s", h, want)
			}
		}
		wantAfter("hidden-second", "Bearer hidden-second")
		wantAfter("", "Bearer hidden-second")
		wantAfter("hidden\nlines", "Bearer hidden-second")
		wantAfter("hidden-third", "Bearer hidden-third")
		if text := log.String(); strings.Count(text, "\n") != 1 || strings.Contains(text, "hidden") {
			t.Errorf("the log is %s", text)
		}
	})
}

func TestFileOfTheUpstreamsTokenMustHoldOne(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"": "empty", " \n": "empty", "hidden\nlines": "no header value", "hidden-ü": "no header value", "Bearer \x00hidden": "no header value",
		strings.Repeat("h", 8<<10+1): "larger than 8192 bytes",
	} {
		cfg := auth.DefaultConfig()
		cfg.UpstreamToken, cfg.UpstreamTokenFile = auth.UpstreamReplace, secretFile(t, content)
		_, err := auth.New(cfg)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "auth.upstream_token_file: ") || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%.20q: %v, want %q in it", content, err, want)
		}
	}
	cfg := auth.DefaultConfig()
	cfg.UpstreamToken, cfg.UpstreamTokenFile = auth.UpstreamReplace, filepath.Join(t.TempDir(), "none")
	if _, err := auth.New(cfg); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a file that is not there: %v", err)
	}
}
