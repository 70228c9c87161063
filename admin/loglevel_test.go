package admin_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/admin"
)

// newLevelled returns an Admin that may change the level of the log that is returned, too.
func newLevelled(t *testing.T, at slog.Level) (*admin.Admin, *slog.LevelVar, *bytes.Buffer) {
	t.Helper()
	level, log := new(slog.LevelVar), new(bytes.Buffer)
	level.Set(at)
	a, err := admin.New(admin.Config{
		Store: &fakeStore{}, Sessions: &fakeStore{}, Metrics: admin.NewMetrics(admin.Build{}), LogLevel: level,
		Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, level, log
}

func putLevel(t *testing.T, a *admin.Admin, from, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/loglevel", strings.NewReader(body))
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, r)
	return w
}

func TestLogLevelIsChangedFromTheOwnHost(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"127.0.0.1:4711", "[::1]:4711", "[::ffff:127.0.0.1]:4711"} {
		a, level, _ := newLevelled(t, slog.LevelInfo)
		if w := get(t, a, "/loglevel"); w.Code != http.StatusOK || w.Body.String() != "info\n" {
			t.Errorf("GET before: %d %q", w.Code, w.Body)
		}
		if w := putLevel(t, a, from, "debug\n"); w.Code != http.StatusOK || w.Body.String() != "debug\n" || level.Level() != slog.LevelDebug {
			t.Errorf("PUT from %s: %d %q, the level is %v", from, w.Code, w.Body, level.Level())
		}
		if w := get(t, a, "/loglevel"); w.Body.String() != "debug\n" {
			t.Errorf("GET after: %q", w.Body)
		}
	}
}

func TestLogLevelIsChangedFromNowhereElse(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"10.1.2.3:4711", "[2001:db8::1]:4711", "0.0.0.0:4711", "@", ""} {
		a, level, _ := newLevelled(t, slog.LevelInfo)
		if w := putLevel(t, a, from, "debug"); w.Code != http.StatusForbidden || level.Level() != slog.LevelInfo {
			t.Errorf("PUT from %q: %d, the level is %v", from, w.Code, level.Level())
		}
	}
}

func TestLogLevelMustBeOneOfFour(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "verbose", "INFO+3", "debug,info", strings.Repeat("debug", 1000)} {
		a, level, _ := newLevelled(t, slog.LevelWarn)
		if w := putLevel(t, a, "127.0.0.1:1", body); w.Code != http.StatusBadRequest || level.Level() != slog.LevelWarn {
			t.Errorf("PUT %.20q: %d, the level is %v", body, w.Code, level.Level())
		}
	}
}

func TestEachChangeOfTheLogLevelIsLogged(t *testing.T) {
	t.Parallel()
	a, level, log := newLevelled(t, slog.LevelError)
	for _, to := range []string{"debug", "error"} {
		log.Reset()
		putLevel(t, a, "127.0.0.1:1", to)
		if !strings.Contains(log.String(), `"to":"`+to+`"`) {
			t.Errorf("the change to %s is not logged: %q", to, log)
		}
	}
	if level.Level() != slog.LevelError {
		t.Errorf("the level is %v", level.Level())
	}
}

func TestWithoutALevelThereIsNoLogLevelPath(t *testing.T) {
	t.Parallel()
	a, _ := newAdmin(t, &fakeStore{}, nil)
	if w := get(t, a, "/loglevel"); w.Code != http.StatusNotFound {
		t.Errorf("GET: %d, want 404", w.Code)
	}
}
