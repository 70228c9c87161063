package redisstore_test

import (
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func TestOpenAcceptsRedisURLs(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"redis://127.0.0.1:6379", "redis://localhost", "redis://user:secret@redis.example:6380/3",
		"rediss://redis.example:6379", "redis://[::1]:6379/0", redisstore.EmbeddedURL,
		"redis-sentinel://a:26379,b,[::1]:26379/main", "rediss-sentinel://u:p@a/main?sentinel_password=x&db=2",
		"redis-cluster://u:p@a:6379,b:6379", "rediss-cluster://a",
	} {
		store, err := redisstore.Open(url, redisstore.Options{Config: cluster.DefaultConfig()})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if err := store.Close(); err != nil {
			t.Errorf("closing the store at %s: %v", url, err)
		}
	}
}

func TestOpenRefusesOtherURLsWithoutShowingThePassword(t *testing.T) {
	t.Parallel()
	const password = "hunter2secret"
	for _, url := range []string{
		"", "127.0.0.1:6379", "http://u:" + password + "@h", "redis//h", "redis://u:" + password + "@h:port",
		"redis://u:" + password + "#@h:6379", "redis://u:" + password + "%zz@h:6379", "redis://h:6379/x",
		"redis://u:" + password + "@h:6379/0?nonsense=" + password, "unix:///redis.sock", "embedded:x", "redis:myhost:6379", "redis:" + password + "@h", "redis://", "redis:///", "redis://h/-1", "redis://h:99999", "redis-cluster://a,h:0", "redis-sentinel://h:99999/m",
		"redis://:12/34" + password + "@host:6379/0", "redis://u:12/x" + password + "@h", "redis://u:12#" + password + "@h", "redis://u:12?pw=" + password + "@h",
		"redis-sentinel://u:" + password + "@a,b", "redis-sentinel://a,,b/main", "redis-cluster://a/3", "redis://a,b", "redis-other://a",
		"redis-cluster://u:" + password + "%zz@a,b", "redis://u:pa:" + password + "/@h",
	} {
		store, err := redisstore.Open(url, redisstore.Options{Config: cluster.DefaultConfig()})
		if err == nil {
			_ = store.Close()
			t.Errorf("%q was accepted", url)
			continue
		}
		if !strings.Contains(err.Error(), "accepted are redis") {
			t.Errorf("%q: %v: does not say what is accepted", url, err)
		}
		if strings.Contains(err.Error(), password) {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
	}
}

func TestOpenRefusesPrefixesThatChangeTheMeaningOfKeys(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"{a}", "a*", "a b", "a\n", "é", strings.Repeat("a", 65), ":a"} {
		_, err := redisstore.Open("redis://h", redisstore.Options{Prefix: prefix, Config: cluster.DefaultConfig()})
		if err == nil || !strings.Contains(err.Error(), "prefix") {
			t.Errorf("prefix %q: %v, want an error that names it", prefix, err)
		}
	}
}

func TestRedactURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"redis://user:secret@h:6379/2?x=secret": "redis://h:6379/2",
		"rediss://h":                            "rediss://h",
		"embedded:":                             "embedded:",
		"redis://u:%zz@h":                       "redis://h",
		"redis-sentinel://u:secret@a,b:1/main":  "redis-sentinel://a,b:1/main",
		"redis://u:a/b?secret@h/1":              "redis://h/1",
		"secret":                                "(unreadable URL)",
	} {
		if got := redisstore.RedactURL(in); got != want {
			t.Errorf("RedactURL(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, seed := range []string{"redis://u:p@h:1/0", "rediss://h", "embedded:", "redis-cluster://a,b", ":", "redis://%", "redis://[::1"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, url string) {
		if url == redisstore.EmbeddedURL {
			return // it starts a server each time
		}
		store, err := redisstore.Open(url, redisstore.Options{Config: cluster.DefaultConfig()})
		if err == nil {
			_ = store.Close()
		}
		_ = redisstore.RedactURL(url)
	})
}
