package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapwire/shadowcat-cluster/proxy/auth"
)

// mustWait checks that nobody can be judged, so that nobody is let in.
func mustWait(t *testing.T, g *auth.Gate, r *http.Request) {
	t.Helper()
	mustNotJudge(t, g, r, auth.ErrKeysUnavailable)
}

// mustNotJudge checks that a token is neither good nor bad yet, for want of keys.
func mustNotJudge(t *testing.T, g *auth.Gate, r *http.Request, want error) {
	t.Helper()
	identity, err := g.Authenticate(r)
	if identity != (auth.Identity{}) || !errors.Is(err, want) {
		t.Fatalf("Authenticate = %+v, %v; want nobody and %v", identity, err, want)
	}
	if f := g.Refusal("/mcp", err); f.Status != http.StatusServiceUnavailable || f.RetryAfter <= 0 || f.Challenge != "" {
		t.Errorf("the answer is %+v", f)
	}
}

var errDown = errors.New("connection refused")

func down(*http.Request) (reply, error) { return reply{}, errDown }

// hanging answers when its request is cancelled.
func hanging(r *http.Request) (reply, error) {
	<-r.Context().Done()
	return reply{}, r.Context().Err()
}

func TestNobodyGetsInWithoutKeys(t *testing.T) {
	t.Parallel()
	big := strings.Repeat(" ", 1<<20)
	many := make([]object, 101)
	for i := range many {
		raw, _ := signingKey{strconv.Itoa(i), "ES256", ecKey().signer}.jwk().MarshalJSON()
		unmarshal(raw, &many[i])
	}
	good := keySet(ecKey())
	for name, answer := range map[string]answer{
		"down":                  down,
		"slow":                  hanging,
		"status 500":            saying(http.StatusInternalServerError, good),
		"status 404":            saying(http.StatusNotFound, good),
		"status 204":            saying(http.StatusNoContent, ""),
		"huge":                  always(good + big),
		"endless":               func(*http.Request) (reply, error) { return reply{http.StatusOK, zeros{}}, nil },
		"slow body":             slowBody,
		"no JSON":               always("<html>log in</html>"),
		"JSON of another shape": always(`["keys"]`),
		"empty":                 always(""),
		"no keys":               always(`{"keys":[]}`),
		"keys that are none":    always(`{"keys":[1,"x",null,{}]}`),
		"keys twice":            always(strings.Replace(good, `{`, `{"keys":[],`, 1)),
		"too many keys":         always(string(marshal(object{"keys": many}))),
		"deeply nested":         always(`{"keys":` + strings.Repeat(`[`, 500_000)),
		"only secrets":          always(`{"keys":[{"kty":"oct","kid":"ec","k":"c2VjcmV0"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				s := &server{answer: answer}
				cfg := jwtConfig(s)
				cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
				g := running(t, cfg)
				began := time.Now()
				token := ecKey().token(nil)
				for range 100 {
					mustWait(t, g, bearing(token))
				}
				if took := time.Since(began); took > 6*time.Second {
					t.Errorf("the requests waited %v", took)
				}
				if s.asked() > 2 {
					t.Errorf("a hundred requests made %d", s.asked())
				}
				synctest.Wait()
				if text := log.String(); !strings.Contains(text, "https://issuer.example/keys") || strings.Contains(text, "hidden") || strings.Contains(text, token) {
					t.Errorf("the log is %s", text)
				}
			})
		})
	}
}

// zeros are without an end.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// slowBody comes byte by byte, for ever.
func slowBody(r *http.Request) (reply, error) { return reply{http.StatusOK, drip{r.Context()}}, nil }

type drip struct{ ctx context.Context }

// Read implements io.Reader.
func (d drip) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		p[0] = ' '
		return 1, nil
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
}

func TestMalformedTokensAreRefusedAlthoughKeysAreMissing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := running(t, jwtConfig(&server{answer: down}))
		mustDeny(t, g, bearing("no-token"), auth.ReasonMalformed)
		mustDeny(t, g, bearing(hmacToken(nil)), auth.ReasonAlgorithm)
	})
}

func TestNobodyGetsInWhileNothingRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, err := auth.New(jwtConfig(serving(keySet(ecKey()))))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		mustWait(t, g, bearing(ecKey().token(nil)))
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("the request waited %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() {
			if err := g.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		mustAdmit(t, g, bearing(ecKey().token(nil)))
		cancel()
		run.Wait()
		// What is known goes on being used; what is not is not waited for.
		mustAdmit(t, g, bearing(ecKey().token(nil)))
		time.Sleep(10 * time.Second) // long enough ago to ask again
		began = time.Now()
		mustNotJudge(t, g, bearing(newKey("new", "ES256").token(nil)), auth.ErrKeyNotFetched)
		if time.Since(began) > 0 {
			t.Error("a request waited for a fetch that never comes")
		}
	})
}

func TestLastGoodKeysAreUsedForABoundedTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serving(keySet(ecKey()))
		g := running(t, jwtConfig(s))
		token := ecKey().token(object{"exp": time.Now().Add(24 * time.Hour).Unix()})
		mustAdmit(t, g, bearing(token))
		s.set(down)
		time.Sleep(time.Hour)
		mustAdmit(t, g, bearing(token))
		mustAdmit(t, g, bearing(ecKey().token(nil))) // nor does that rest on memory alone
		time.Sleep(time.Nanosecond)
		mustWait(t, g, bearing(token)) // remembered or not
		s.set(always(keySet(ecKey())))
		time.Sleep(time.Minute)
		mustAdmit(t, g, bearing(token))
	})
}

func TestKeysAreFetchedWhenTheyAreDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serving(keySet(ecKey()))
		running(t, jwtConfig(s))
		time.Sleep(time.Hour + time.Minute)
		if n := s.asked(); n < 7 || n > 8 {
			t.Errorf("%d requests in an hour, want one every ten minutes or a little less", n)
		}
		s.set(down)
		time.Sleep(11 * time.Minute) // the next one fails
		before := s.asked()
		time.Sleep(10 * time.Minute)
		if n := s.asked() - before; n < 9 || n > 13 {
			t.Errorf("%d requests in ten minutes of failure, want about one a minute", n)
		}
	})
}

func TestNewKeyIsFoundAsSoonAsATokenNamesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newKey("first", "ES256"), newKey("second", "ES256")
		s := serving(keySet(first))
		g := running(t, jwtConfig(s))
		old := first.token(nil)
		mustAdmit(t, g, bearing(old))
		time.Sleep(time.Minute)
		s.set(always(keySet(second, first)))
		mustAdmit(t, g, bearing(second.token(nil)))
		mustAdmit(t, g, bearing(old))
		if s.asked() != 2 {
			t.Errorf("%d requests, want 2", s.asked())
		}
		// The old key is withdrawn: what it signed is no good any more, remembered or not.
		time.Sleep(time.Minute)
		s.set(always(keySet(second)))
		time.Sleep(10 * time.Minute)
		mustDeny(t, g, bearing(old), auth.ReasonUnknownKey)
		mustAdmit(t, g, bearing(second.token(nil)))
	})
}

// Keys may be fetched for a token once in five seconds. Until then a key that is not known is nobody's fault.
func TestATokenOfAKeyThatIsNewerThanTheLastFetchIsToldToComeAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second, none := newKey("first", "ES256"), newKey("second", "ES256"), newKey("none", "ES256")
		s := serving(keySet(first))
		g := running(t, jwtConfig(s))
		mustAdmit(t, g, bearing(first.token(nil)))
		time.Sleep(time.Second)
		s.set(always(keySet(first, second))) // a second after they were fetched
		rotated, forged := bearing(second.token(nil)), bearing(none.token(nil))
		for range 3 {
			mustNotJudge(t, g, rotated, auth.ErrKeyNotFetched)
			mustNotJudge(t, g, forged, auth.ErrKeyNotFetched)
			if f := g.Refusal("/mcp", auth.ErrKeyNotFetched); f.RetryAfter != 4*time.Second {
				t.Errorf("come again in %v, want when keys may be fetched", f.RetryAfter)
			}
		}
		if s.asked() != 1 {
			t.Errorf("%d requests, want 1", s.asked())
		}
		time.Sleep(4 * time.Second)
		mustAdmit(t, g, rotated)
		mustDeny(t, g, forged, auth.ReasonUnknownKey) // by the same fetch
		time.Sleep(time.Second)
		mustDeny(t, g, forged, auth.ReasonUnknownKey)
		if s.asked() != 2 {
			t.Errorf("%d requests, want 2", s.asked())
		}
	})
}

// Whoever makes up keys has them remembered, but not without a bound.
func TestFewUnknownKeysAreRemembered(t *testing.T) {
	t.Parallel()
	const most = 4096
	if remembered := auth.UnknownAfter(3*most + 1); remembered > most {
		t.Errorf("%d unknown keys are remembered, want at most %d", remembered, most)
	}
}

func TestReplacedKeyUnderTheSameKidVerifiesNothingOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		before, after := newKey("same", "ES256"), newKey("same", "ES256")
		s := serving(keySet(before))
		g := running(t, jwtConfig(s))
		old := before.token(nil)
		mustAdmit(t, g, bearing(old))
		s.set(always(keySet(after)))
		time.Sleep(11 * time.Minute)
		mustDeny(t, g, bearing(old), auth.ReasonSignature)
		mustAdmit(t, g, bearing(after.token(nil)))
	})
}

func TestFloodOfUnknownKeysMakesFewFetches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := serving(keySet(ecKey()))
		g := running(t, jwtConfig(s))
		good := bearing(ecKey().token(nil))
		mustAdmit(t, g, good)
		s.set(hanging) // the worst moment for it
		time.Sleep(time.Minute)
		before := s.asked()
		var flood sync.WaitGroup
		attacker := newKey("", "ES256")
		for i := range 200 {
			attacker.id = fmt.Sprint("unknown-", i)
			token := attacker.token(nil)
			flood.Go(func() {
				began := time.Now()
				mustNotJudge(t, g, bearing(token), auth.ErrKeyNotFetched) // the issuer has not said that it has no such key
				if took := time.Since(began); took > 6*time.Second {
					t.Errorf("an attacker waited %v", took)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		mustAdmit(t, g, good)
		mustAdmit(t, g, bearing(ecKey().token(object{"sub": "another"})))
		if time.Since(began) > 0 {
			t.Error("clients with known keys waited")
		}
		flood.Wait()
		if n := s.asked() - before; n != 1 {
			t.Errorf("200 tokens of unknown keys made %d requests, want 1", n)
		}
	})
}

func TestClientThatLeavesWaitsForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := running(t, jwtConfig(&server{answer: hanging}))
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		time.AfterFunc(time.Second, cancel)
		mustWait(t, g, bearing(ecKey().token(nil)).WithContext(ctx))
		if took := time.Since(began); took != time.Second {
			t.Errorf("it waited %v", took)
		}
	})
}

func TestPanicOfAParserIsAFailedFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(*http.Request) (reply, error) { panic("a fault") }}
		g := running(t, jwtConfig(s))
		mustWait(t, g, bearing(ecKey().token(nil)))
		s.set(always(keySet(ecKey())))
		time.Sleep(10 * time.Second)
		mustAdmit(t, g, bearing(ecKey().token(nil)))
	})
}

// metadataOf answers discovery, and requests for keys.
func metadataOf(documents map[string]any) answer {
	return func(r *http.Request) (reply, error) {
		switch document := documents[r.URL.String()].(type) {
		case nil:
			return saying(http.StatusNotFound, "{}")(r)
		case string:
			return always(document)(r)
		default:
			return always(string(marshal(document)))(r)
		}
	}
}

func TestKeysAreDiscoveredFromTheIssuer(t *testing.T) {
	t.Parallel()
	const (
		openID = "https://issuer.example/realm/.well-known/openid-configuration"
		oauth  = "https://issuer.example/.well-known/oauth-authorization-server/realm"
		keys   = "https://keys.example/all"
	)
	good := object{"issuer": issuerURL, "jwks_uri": keys}
	for _, c := range []struct {
		name      string
		documents map[string]any
		isGood    bool
	}{
		{"OpenID Connect", map[string]any{openID: good, keys: keySet(ecKey())}, true},
		{"RFC 8414", map[string]any{oauth: good, keys: keySet(ecKey())}, true},
		{"nothing", map[string]any{keys: keySet(ecKey())}, false},
		{"another issuer", map[string]any{openID: object{"issuer": "https://other.example", "jwks_uri": keys}, oauth: good, keys: keySet(ecKey())}, false},
		{"no issuer", map[string]any{openID: object{"jwks_uri": keys}, keys: keySet(ecKey())}, false},
		{"no URL of keys", map[string]any{openID: object{"issuer": issuerURL}, keys: keySet(ecKey())}, false},
		{"keys over http", map[string]any{openID: object{"issuer": issuerURL, "jwks_uri": "http://keys.example/all"}, "http://keys.example/all": keySet(ecKey())}, false},
		{"keys in a file", map[string]any{openID: object{"issuer": issuerURL, "jwks_uri": "file:///etc/passwd"}}, false},
		{"a URL with a password", map[string]any{openID: object{"issuer": issuerURL, "jwks_uri": "https://hidden-user:hidden-word@keys.example/all"}}, false},
		{"no JSON", map[string]any{openID: "<html>", oauth: good, keys: keySet(ecKey())}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log logBuffer
				cfg := jwtConfig(&server{answer: metadataOf(c.documents)})
				cfg.JWKSURL = ""
				cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
				g := running(t, cfg)
				if c.isGood {
					mustAdmit(t, g, bearing(ecKey().token(nil)))
					return
				}
				mustWait(t, g, bearing(ecKey().token(nil)))
				if synctest.Wait(); strings.Contains(log.String(), "hidden") {
					t.Errorf("the log is %s", log.String())
				}
			})
		})
	}
}

// What follows goes through the network, and the transport that is used when none is configured.

func TestKeysComeOverTheNetwork(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 16)
	var mux http.ServeMux
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		_, _ = io.WriteString(w, keySet(ecKey()))
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) })
	mux.HandleFunc("/around", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/around", http.StatusFound) })
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Filler", strings.Repeat("x", 100<<10))
		_, _ = io.WriteString(w, keySet(ecKey()))
	})
	own := httptest.NewServer(&mux)
	t.Cleanup(own.Close)
	// The same server under another name, which is another server.
	_, port, _ := net.SplitHostPort(own.Listener.Addr().String())
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://localhost:"+port+"/keys?hidden-query", http.StatusFound)
	})
	for path, isGood := range map[string]bool{"/keys": true, "/moved": true, "/around": false, "/elsewhere": false, "/header": false} {
		var log logBuffer
		g := gate(t, func(c *auth.Config) {
			c.Transport, c.JWKSURL = nil, own.URL+path
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		token := bearing(ecKey().token(nil))
		if isGood {
			mustAdmit(t, g, token)
			continue
		}
		mustWait(t, g, token)
		if text := log.String(); strings.Contains(text, "hidden") || !strings.Contains(text, path) {
			t.Errorf("%s: the log is %s", path, text)
		}
	}
	if n := len(asked); n != 2 {
		t.Errorf("keys were served %d times, want 2", n)
	}
}

func TestSlowServerOfKeysIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"header", "body"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if name == "body" {
					_, _ = io.WriteString(w, `{"keys":[`)
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
			}))
			t.Cleanup(slow.Close)
			g := gate(t, func(c *auth.Config) {
				c.Transport, c.JWKSURL, c.JWKSTimeout = nil, slow.URL, 100*time.Millisecond
			})
			began := time.Now()
			mustWait(t, g, bearing(ecKey().token(nil)))
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the request waited %v", took)
			}
		})
	}
}

func TestUntrustedServerOfKeysIsNotBelieved(t *testing.T) {
	t.Parallel()
	var log logBuffer
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, keySet(ecKey())) }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.StartTLS() // with a certificate of nobody we know
	t.Cleanup(s.Close)
	g := gate(t, func(c *auth.Config) {
		c.Transport, c.JWKSURL = nil, s.URL
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	mustWait(t, g, bearing(ecKey().token(nil)))
	if !strings.Contains(log.String(), "certificate") {
		t.Errorf("the log is %s", log.String())
	}
}

func TestRequestsForKeysCarryNothingOfClients(t *testing.T) {
	t.Parallel()
	headers := make(chan http.Header, 4)
	s := &server{answer: func(r *http.Request) (reply, error) {
		headers <- r.Header
		return always(keySet(ecKey()))(r)
	}}
	g := running(t, jwtConfig(s))
	mustAdmit(t, g, bearing(ecKey().token(nil)))
	for name := range <-headers {
		if !slices.Contains([]string{"Accept", "User-Agent"}, name) {
			t.Errorf("the header %s is sent", name)
		}
	}
}
