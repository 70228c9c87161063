package redisstore_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestOpenRefusesPasswordFilesThatDoNotFit(t *testing.T) {
	t.Parallel()
	good, empty := passwordFile(t, "hunter2\n"), passwordFile(t, "\n")
	missing := filepath.Join(t.TempDir(), "missing")
	for name, test := range map[string]struct {
		url   string
		files redisstore.PasswordFiles
		want  string
	}{
		"a password in the URL, too":             {"redis://u:hunter2@h", redisstore.PasswordFiles{User: good}, "leave one of them out"},
		"a file that is missing":                 {"redis://u@h", redisstore.PasswordFiles{User: missing}, missing},
		"an empty file":                          {"redis-cluster://u@h", redisstore.PasswordFiles{User: empty}, empty},
		"sentinels where there are none":         {"redis://h", redisstore.PasswordFiles{Sentinel: good}, "redis-sentinel"},
		"a password of sentinels in the URL":     {"redis-sentinel://h/m?sentinel_password=hunter2", redisstore.PasswordFiles{Sentinel: good}, "leave one of them out"},
		"a file for sentinels that is missing":   {"redis-sentinel://h/m", redisstore.PasswordFiles{Sentinel: missing}, missing},
		"the store in this process has no users": {redisstore.EmbeddedURL, redisstore.PasswordFiles{User: good}, "inside this process"},
	} {
		store, err := redisstore.Open(test.url, redisstore.Options{Config: cluster.DefaultConfig(), Passwords: test.files})
		if err == nil {
			_ = store.Close()
			t.Errorf("%s was accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want an error that says %q and no password", name, err, test.want)
		}
	}
}

// A password is changed while the store is open: first at the server, then in the file.
func TestAChangedPasswordIsUsedByTheNextConnection(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	const first, second = "p@ss/w:rd?#1 ", "second"
	server.RequireUserAuth("shadowcat", first)
	file := passwordFile(t, first+"\r\n")
	var log bytes.Buffer
	store, err := redisstore.Open("redis://shadowcat@"+server.Addr(), redisstore.Options{
		Config: cluster.DefaultConfig(), Passwords: redisstore.PasswordFiles{User: file}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	ping := func() (err error) {
		if err := server.Restart(); err != nil { // so that the next call needs a new connection
			t.Fatal(err)
		}
		for range 3 { // one may meet a connection that died with the old server
			if err = store.Ping(t.Context()); err == nil {
				return nil
			}
		}
		return err
	}
	stop := func() { server.Close() }
	stop()
	if err := ping(); err != nil {
		t.Fatalf("with the first password: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := ping(); err != nil {
		t.Errorf("with the last password, while the file is missing: %v", err)
	}
	if text := log.String(); !strings.Contains(text, file) || strings.Contains(text, first) {
		t.Errorf("the log does not name the file, or shows the password: %s", text)
	}
	server.RequireUserAuth("shadowcat", second)
	stop()
	if ping() == nil {
		t.Error("the old password is good still: the server does not ask for any")
	}
	if err := os.WriteFile(file, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := ping(); err != nil {
		t.Errorf("with the second password: %v", err)
	}
}

func passwordFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
