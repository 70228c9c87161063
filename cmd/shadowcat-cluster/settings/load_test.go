package settings_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// flags returns sources with one value for each flag, by setting name.
func flags(nameAndValue ...string) settings.Sources {
	values := make(map[string][]string)
	for pair := range slices.Chunk(nameAndValue, 2) {
		values[pair[0]] = append(values[pair[0]], pair[1])
	}
	return settings.Sources{Flags: values}
}

func yamlFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shadowcat.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, src settings.Sources) settings.Settings {
	t.Helper()
	s, err := settings.Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refused loads src, which must fail, and returns the problems.
func refused(t *testing.T, src settings.Sources) []string {
	t.Helper()
	_, err := settings.Load(src)
	if err == nil {
		t.Fatal("Load accepted it")
	}
	return strings.Split(err.Error(), "\n")
}

func TestDefaultsAreTheDocumentedOnes(t *testing.T) {
	t.Parallel()
	got := load(t, settings.Sources{})
	want := settings.Settings{
		Listen:      "127.0.0.1:8081",
		AdminListen: "127.0.0.1:9081",
		Redis:       "redis://127.0.0.1:6379",
		Prefix:      "shadowcat",
		MaxBody:     4 << 20,
		MaxHeader:   128 << 10,
		LogLevel:    slog.LevelInfo,
		LogFormat:   settings.LogAuto,
		Cluster:     cluster.DefaultConfig(),

		Recording: record.Off, RecordingRedact: record.DefaultRedact(), RecordingRedactHeaders: record.DefaultRedactHeaders(), Auth: auth.DefaultConfig(),

		Recover: true, FollowInterval: 100 * time.Millisecond, StreamKeepAlive: 15 * time.Second,
		DrainDelay: 3 * time.Second, DrainTimeout: 25 * time.Second,

		HeaderTimeout: 10 * time.Second, BodyTimeout: 30 * time.Second, ConnectionIdleTimeout: 2 * time.Minute,
		ReplicaMaxRequests: 2048, ReplicaMaxBytes: 64 << 20, ReplicaMaxStreams: 10000,

		Sweeper: true, SweepInterval: 5 * time.Second, SweepBatch: 100, LeaderTTL: 10 * time.Second, EmergencyPercent: 90,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEverySettingHasOneNameEverywhere(t *testing.T) {
	t.Parallel()
	seen := make(map[string]string)
	for _, s := range settings.Table() {
		for _, name := range []string{s.Name, s.Flag(), s.Env()} {
			if other, taken := seen[name]; taken && other != s.Name {
				t.Errorf("%s and %s share the name %s", s.Name, other, name)
			}
			seen[name] = s.Name
		}
		if s.Meaning == "" || !strings.HasSuffix(s.Meaning, ".") {
			t.Errorf("%s has no sentence that tells what it means", s.Name)
		}
	}
	if got := seen["max-sessions"]; got != "max_sessions" {
		t.Errorf("--max-sessions is %q", got)
	}
	if got := seen["SHADOWCAT_AUTH_MODE"]; got != "auth.mode" {
		t.Errorf("SHADOWCAT_AUTH_MODE is %q", got)
	}
}

func TestFlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	t.Parallel()
	src := settings.Sources{File: yamlFile(t, "max_sessions: 1\nidle_timeout: 1m\nmax_age: 1h\n")}
	src.Environ = []string{"SHADOWCAT_MAX_SESSIONS=2", "SHADOWCAT_IDLE_TIMEOUT=2m"}
	src.Flags = map[string][]string{"max_sessions": {"3"}}
	got := load(t, src).Cluster
	want := cluster.DefaultConfig()
	want.MaxSessions, want.IdleTimeout, want.MaxAge = 3, 2*time.Minute, time.Hour
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEverySourceTakesEveryKindOfValue(t *testing.T) {
	t.Parallel()
	file := settings.Sources{File: yamlFile(t, `
# a comment
---
listen: ":8443"
admin_listen: off-to-be-overridden:1
upstream: [http://a/mcp, "b=https://b:1/mcp?x=y"]
allowed_origins: [https://x.example, "http://localhost:6274"]
allowed_hosts: mcp.example
max_body: 1MiB
recover: false
events: {count: 9, bytes: 1KiB, age: 1m}
upstream_check_interval: 5s
follow_interval: 50ms
stream_keep_alive: 0
drain_delay: 0
drain_timeout: 9s
max_sessions: 5
request_rate: 7/s
request_burst: 9
lease: 0
retention: 7d
auth: {mode: none}
log_level: warn
log_format: json
replica_id: r-1
prefix: "shadowcat:prod"
redis: rediss://u:p@r:1/2
redis_password_file: /etc/redis/password
redis_sentinel_password_file: /etc/sentinel/password
redis_ca_file: /etc/ca.pem
redis_cert_file: cert.pem
redis_key_file: key.pem
`), Flags: map[string][]string{"admin_listen": {"off"}}}
	environ := settings.Sources{Environ: []string{
		"PATH=/bin", "SHADOWCAT_LISTEN=:8443", "SHADOWCAT_ADMIN_LISTEN=off",
		"SHADOWCAT_UPSTREAM=http://a/mcp\n b=https://b:1/mcp?x=y ",
		"SHADOWCAT_ALLOWED_ORIGINS=https://x.example, http://localhost:6274", "SHADOWCAT_ALLOWED_HOSTS=mcp.example",
		"SHADOWCAT_RECOVER=false", "SHADOWCAT_EVENTS_COUNT=9", "SHADOWCAT_EVENTS_BYTES=1024", "SHADOWCAT_EVENTS_AGE=60s",
		"SHADOWCAT_UPSTREAM_CHECK_INTERVAL=5s", "SHADOWCAT_FOLLOW_INTERVAL=50ms", "SHADOWCAT_STREAM_KEEP_ALIVE=0s",
		"SHADOWCAT_DRAIN_DELAY=0s", "SHADOWCAT_DRAIN_TIMEOUT=9s",
		"SHADOWCAT_MAX_BODY=1048576", "SHADOWCAT_MAX_SESSIONS=5", "SHADOWCAT_REQUEST_RATE=7", "SHADOWCAT_REQUEST_BURST=9",
		"SHADOWCAT_LEASE=0", "SHADOWCAT_RETENTION=168h", "SHADOWCAT_AUTH_MODE=none", "SHADOWCAT_LOG_LEVEL=warn",
		"SHADOWCAT_LOG_FORMAT=json", "SHADOWCAT_REPLICA_ID=r-1", "SHADOWCAT_PREFIX=shadowcat:prod",
		"SHADOWCAT_REDIS=rediss://u:p@r:1/2", "SHADOWCAT_REDIS_PASSWORD_FILE=/etc/redis/password",
		"SHADOWCAT_REDIS_SENTINEL_PASSWORD_FILE=/etc/sentinel/password", "SHADOWCAT_REDIS_CA_FILE=/etc/ca.pem", "SHADOWCAT_REDIS_CERT_FILE=cert.pem",
		"SHADOWCAT_REDIS_KEY_FILE=key.pem",
	}}
	line := flags("listen", ":8443", "admin_listen", "off", "upstream", "http://a/mcp", "upstream", "b=https://b:1/mcp?x=y",
		"allowed_origins", "https://x.example", "allowed_origins", "http://localhost:6274", "allowed_hosts", "mcp.example",
		"recover", "false", "events.count", "9", "events.bytes", "1KiB", "events.age", "1m", "upstream_check_interval", "5s",
		"follow_interval", "50ms", "stream_keep_alive", "0", "drain_delay", "0", "drain_timeout", "9s",
		"max_body", "1024KiB", "max_sessions", "5", "request_rate", "7/s", "request_burst", "9", "lease", "0s",
		"retention", "6d24h", "auth.mode", "none", "log_level", "warn", "log_format", "json", "replica_id", "r-1",
		"prefix", "shadowcat:prod", "redis", "rediss://u:p@r:1/2", "redis_password_file", "/etc/redis/password",
		"redis_sentinel_password_file", "/etc/sentinel/password", "redis_ca_file", "/etc/ca.pem",
		"redis_cert_file", "cert.pem", "redis_key_file", "key.pem")
	want := load(t, line)
	if len(want.Upstreams) != 2 || want.Upstreams[1].Name != "b" || want.Upstreams[1].URL.String() != "https://b:1/mcp?x=y" {
		t.Errorf("upstreams are %v", want.Upstreams)
	}
	if files := (redisstore.TLSFiles{CA: "/etc/ca.pem", Certificate: "cert.pem", Key: "key.pem"}); want.RedisTLS != files {
		t.Errorf("the store's TLS files are %+v, want %+v", want.RedisTLS, files)
	}
	if files := (redisstore.PasswordFiles{User: "/etc/redis/password", Sentinel: "/etc/sentinel/password"}); want.RedisPasswords != files {
		t.Errorf("the store's password files are %+v, want %+v", want.RedisPasswords, files)
	}
	if want.AdminListen != "" || want.Cluster.Lease != 0 || want.MaxBody != 1<<20 || want.Recover || want.Cluster.EventsBytes != 1024 || want.DrainTimeout != 9*time.Second || want.LogLevel != slog.LevelWarn {
		t.Errorf("settings are %+v", want)
	}
	for name, src := range map[string]settings.Sources{"file": file, "environment": environ} {
		if diff := cmp.Diff(want, load(t, src)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAListReplacesTheListOfAWeakerSource(t *testing.T) {
	t.Parallel()
	src := flags("upstream", "http://flag/mcp")
	src.File = yamlFile(t, "upstream: [a=http://a/mcp, b=http://b/mcp]")
	if got := load(t, src).Upstreams; len(got) != 1 || got[0].URL.Host != "flag" {
		t.Errorf("upstreams are %v", got)
	}
}

func TestTheEnvironmentCanNameTheFile(t *testing.T) {
	t.Parallel()
	path := yamlFile(t, "max_sessions: 77")
	if got := load(t, settings.Sources{Environ: []string{"SHADOWCAT_CONFIG=" + path}}).Cluster.MaxSessions; got != 77 {
		t.Errorf("max_sessions is %d", got)
	}
}

// badValues are values that cannot be read, or not be used, and some of what the error says.
var badValues = []struct{ name, value, want string }{
	{"listen", "8081", `listen: "8081" is no address to listen on`},
	{"listen", "127.0.0.1:http", "listen: "},
	{"listen", "127.0.0.1:70000", "listen: "},
	{"admin_listen", "", "admin_listen: "},
	{"redis", "", "redis: is empty"},
	{"redis_ca_file", "", "redis_ca_file: is empty"},
	{"prefix", "", "prefix: "},
	{"prefix", "a{b}", "prefix: "},
	{"prefix", "a*", "prefix: "},
	{"prefix", "a b", "prefix: "},
	{"prefix", "a\nb", "prefix: "},
	{"prefix", "ü", "prefix: "},
	{"prefix", strings.Repeat("p", 65), "prefix: "},
	{"replica_id", "a b", "replica_id: "},
	{"upstream", "", "upstream: "},
	{"upstream", "127.0.0.1:9000/mcp", "upstream: "},
	{"upstream", "ftp://h/mcp", `"ftp://h/mcp" is not an http or https URL`},
	{"upstream", "http:///mcp", "has no host"},
	{"upstream", "Files=http://h/mcp", `the name "Files" is not`},
	{"upstream", "=http://h/mcp", `the name "" is not`},
	{"upstream", "a/b=http://h/mcp", "the name"},
	{"upstream", strings.Repeat("n", 64) + "=http://h/mcp", "the name"},
	{"upstream", "http://h/mcp#frag", "has a fragment"},
	{"upstream", "http://u:p@h/mcp", "has a user or password"},
	{"upstream", "http://h:65536/mcp", `"http://h:65536/mcp" has a port that is not 1 to 65535`},
	{"upstream", "http://h:0/mcp", "has a port that is not"},
	{"upstream", "http://h/mcp,b=http://h2/x", "the value without a name lists several upstreams with commas, which are for endpoints of one; separate upstreams by spaces"},
	{"upstream", "a=http://h/mcp,b=dns+http://h2/x", `the value of "a" lists several upstreams`},
	{"upstream", "http://h/mcp,b=h2:80/x", "lists several upstreams"},
	{"upstream", "http://h/mcp, https://h2/x", "write the endpoints of one upstream as URL,URL"},
	{"upstream", "http://h/mcp,", "write the endpoints of one upstream as URL,URL"},
	{"upstream", "http://a,b/mcp", `"http://a,b/mcp" lists hosts; write each endpoint as a whole URL`},
	{"upstream", "http://a/mcp,http://b:0/mcp", `"http://b:0/mcp" has a port that is not`},
	{"upstream", "dns+http://a/mcp,http://b/mcp", `"dns+http://a/mcp" stands for all addresses of its host; it must be the only one`},
	{"upstream", "http://b/mcp,dns+https://a/mcp", `"dns+https://a/mcp" stands for all addresses`},
	{"upstream", "dns+ftp://a/mcp", "is not an http or https URL"},
	{"upstream", "dns+http:///mcp", "has no host"},
	{"upstream_check_interval", "10ms", `upstream_check_interval: "10ms" is neither 0 nor in 1s to`},
	{"recover", "no", `recover: "no" is neither true nor false`},
	{"follow_interval", "1ms", `follow_interval: "1ms" is not in 10ms to 10s`},
	{"follow_interval", "0", "follow_interval: "},
	{"stream_keep_alive", "100ms", `stream_keep_alive: "100ms" is neither 0 nor in 1s to`},
	{"events.count", "10001", "events.count: 10001 is not in 0 to 10000 events"},
	{"events.bytes", "1GiB", "events.bytes: 1073741824 is not in 0 to 67108864 bytes"},
	{"events.bytes", "4GiB", `events.bytes: "4GiB" is too large`},
	{"events.bytes", "1MB", "events.bytes: "},
	{"events.age", "soon", "events.age: "},
	{"drain_delay", "1h", `drain_delay: "1h" is not in 0s to`},
	{"drain_timeout", "0s", "drain_timeout: "},
	{"allowed_origins", "inspector.example", "is no origin"},
	{"allowed_origins", "https://x.example/", "is no origin"},
	{"allowed_hosts", "https://x.example", "is no host"},
	{"max_body", "0", "is not in 1KiB to 1GiB"},
	{"max_body", "2GiB", "is not in 1KiB to 1GiB"},
	{"max_body", "4MB", "unknown unit"},
	{"max_sessions", "-1", `max_sessions: "-1" is negative`},
	{"max_sessions", "1e3", `max_sessions: "1e3" is not a whole number`},
	{"max_sessions", "01", `max_sessions: "01" begins with 0; want a whole number`},
	{"max_sessions", "99999999999999999999", "is too large"},
	{"max_sessions", "1000000000", "max_sessions: 1000000000 is not in"},
	{"request_rate", "50/m", `request_rate: "50/m" is not a rate a second`},
	{"request_burst", "0", "request_burst: 0 lets no request through"},
	{"idle_timeout", "5x", `idle_timeout: "5x" has the unknown unit "x"; want`},
	{"initialize_timeout", "0", `initialize_timeout: "0" would turn it off`},
	{"store_timeout", "0", "store_timeout: "},
	{"store_timeout", "0s", "store_timeout: "},
	{"lease", "500ms", "lease: 500ms must be 0 or longer than report_interval"},
	{"report_slack", "10ms", "report_slack: "},
	{"auth.mode", "magic", `auth.mode: "magic" is not known; want none, header or jwt`},
	{"auth.issuer", "https://issuer.example", "auth.issuer: is used only with auth.mode jwt; set that, or leave it out"},
	{"auth.header", "", "auth.header: is empty"},
	{"auth.trusted_proxies", "10.1.2.3/16", "auth.trusted_proxies: 10.1.2.3/16 has bits after its mask; want 10.1.0.0/16"},
	{"auth.clock_skew", "soon", "auth.clock_skew: "},
	{"auth.upstream_token", "keep", `auth.upstream_token: "keep" is not known; want pass, strip or replace`},
	{"auth.allow_http", "yes", `auth.allow_http: "yes" is neither true nor false`},
	{"log_level", "INFO", `log_level: "INFO" is not known; want debug, info, warn or error`},
	{"log_format", "xml", "log_format: "},
	{"recording", "all", `recording: "all" is not known; want off, metadata or full`},
	{"recording_redact", "a..b", `recording_redact: "a..b" is no path of keys; want`},
	{"recording_redact", "p*ss", `recording_redact: "p*ss" is no path of keys`},
	{"recording_redact_headers", "X:Key", `recording_redact_headers: "X:Key" is no name of a header`},
	{"frames.count", "10001", "frames.count: 10001 is not in 0 to 10000"},
	{"frames.bytes", "65MiB", "frames.bytes: 68157440 is not in 0 to 67108864 bytes"},
	{"sweeper", "maybe", `sweeper: "maybe" is neither true nor false`},
	{"sweep_interval", "10ms", `sweep_interval: "10ms" is not in 1s to 1h`},
	{"emergency_percent", "101", `emergency_percent: "101" is not in 0 to 100 percent`},
	{"create_rate_per_principal", "5/m", `create_rate_per_principal: "5/m" is not a rate a second`},
	{"max_sessions_per_principal", "-1", `max_sessions_per_principal: "-1" is negative`},
	{"max_streams", "1001", "max_streams: 1001 is not in 0 to 1000 streams"},
	{"stateless_rate_per_principal", "5/m", `stateless_rate_per_principal: "5/m" is not a rate a second`},
	{"max_header", "1KiB", `max_header: "1KiB" is not in 8KiB to 16MiB`},
	{"header_timeout", "0", `header_timeout: "0" would turn it off, which is not possible`},
	{"connection_idle_timeout", "2h", `connection_idle_timeout: "2h" is not in 1s to 1h`},
	{"replica_max_requests", "-1", `replica_max_requests: "-1" is negative`},
	{"replica_max_bytes", "1MiB", "replica_max_bytes: 1MiB is less than max_body (4MiB), so that such a body could never be sent"},
	{"wait_replicas", "17", `wait_replicas: "17" is not in 0 to 16`},
	{"max_pending", "10001", "max_pending: 10001 is not in 0 to 10000"},
}

func TestBadValuesAreRefusedByName(t *testing.T) {
	t.Parallel()
	for _, c := range badValues {
		problems := refused(t, flags(c.name, c.value))
		if len(problems) != 1 || !strings.HasPrefix(problems[0], c.name+": ") || !strings.Contains(problems[0], c.want) {
			t.Errorf("%s=%q: %q; want one problem with %q", c.name, c.value, problems, c.want)
		}
	}
}

func TestUpstreamNamesAreDistinct(t *testing.T) {
	t.Parallel()
	for want, values := range map[string][]string{
		"two of them have no name":   {"http://a/mcp", "http://b/mcp"},
		`the name "x" is used twice`: {"x=http://a/mcp", "x=http://b/mcp"},
	} {
		problems := refused(t, settings.Sources{Flags: map[string][]string{"upstream": values}})
		if len(problems) != 1 || !strings.Contains(problems[0], want) {
			t.Errorf("%q: %q", values, problems)
		}
	}
}

func TestAnUpstreamMayHaveSeveralEndpoints(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"http://a/mcp": {"", "http://a/mcp"},
		"files=http://a/mcp?x=1,2,https://b:1/mcp?y=,3,http://c/mcp": {"files", "http://a/mcp?x=1,2", "https://b:1/mcp?y=,3", "http://c/mcp"},
		"http://a/mcp?next=http://x,y=z,http://b/mcp":                {"", "http://a/mcp?next=http://x,y=z", "http://b/mcp"},
		"files=dns+https://a:1/mcp?x=1,2":                            {"files", "dns+https://a:1/mcp?x=1,2"},
	} {
		for source, src := range map[string]settings.Sources{
			"flag": flags("upstream", text), "environment": {Environ: []string{"SHADOWCAT_UPSTREAM=" + text}},
			"file": {File: yamlFile(t, "upstream: "+text)}, "file's list": {File: yamlFile(t, `upstream: ["`+text+`"]`)},
		} {
			upstreams := load(t, src).Upstreams
			if len(upstreams) != 1 {
				t.Errorf("%s, %s: %d upstreams", text, source, len(upstreams))
				continue
			}
			got := []string{upstreams[0].Name, upstreams[0].URL.String()}
			for _, more := range upstreams[0].More {
				got = append(got, more.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, %s: %q, want %q", text, source, got, want)
			}
		}
	}
}

func TestAllMistakesAreReportedTogetherWithTheirSource(t *testing.T) {
	t.Parallel()
	path := yamlFile(t, "max_age: 5x\nmax_sesions: 5\nauth: {isuer: x}\nmax_body: [1, 2]\nretention:\nlisten: {a: b}\n")
	src := settings.Sources{
		File:    path,
		Environ: []string{"SHADOWCAT_LEASE=-1s", "SHADOWCAT_MAX_SESSION=5", "SHADOWCAT_EVENTS_MAX_AGE=5m"},
		Flags:   map[string][]string{"upstream": {"ftp://a", "x=y"}},
	}
	got := strings.ReplaceAll(strings.Join(refused(t, src), "\n"), path, "FILE")
	want := strings.TrimSpace(`
max_sesions: unknown setting; did you mean max_sessions? (from FILE)
auth.isuer: unknown setting; did you mean auth.issuer? (from FILE)
max_body: takes one value, not a list (from FILE)
retention: has no value (from FILE)
listen: takes text or a number (from FILE)
SHADOWCAT_MAX_SESSION: unknown setting; did you mean SHADOWCAT_MAX_SESSIONS?
SHADOWCAT_EVENTS_MAX_AGE: unknown setting; did you mean SHADOWCAT_EVENTS_AGE?
upstream: "ftp://a" is not an http or https URL; want URL, URL,URL or name=URL with http or https, such as files=http://127.0.0.1:9000/mcp (from --upstream)
upstream: "y" is not an http or https URL; want URL, URL,URL or name=URL with http or https, such as files=http://127.0.0.1:9000/mcp (from --upstream)
max_age: "5x" has the unknown unit "x"; want whole numbers with units d, h, m, s or ms, largest first, such as 250ms, 1h30m or 7d, at most 365d (from FILE)
lease: "-1s" is negative; want whole numbers with units d, h, m, s or ms, largest first, such as 250ms, 1h30m or 7d, at most 365d (from SHADOWCAT_LEASE)
`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsNeverShowCredentials(t *testing.T) {
	t.Parallel()
	for _, upstream := range []string{
		"ftp://user:hunter2@h/mcp", "http://user:hunter2@/mcp", "http://user:hunter2@h:port/mcp", "x=http://user:hunter2@h/%zz",
		"http://user:hunter2@h/mcp#x", "http://user:hunter2@a,b/mcp", "ftp://h/mcp?key=hunter2", "http://hunter2@h/mcp",
		"http://a/mcp,http://user:hunter2@b/mcp", "http://a/mcp?key=hunter2,dns+http://b/mcp?key=hunter2", "http://a/mcp?key=hunter2, http://b",
		"dns+http://user:hunter2@h/mcp", "http://a/mcp,http://h/%zz?hunter2", "http://h/mcp,b=h2/mcp?hunter2", "http://h/mcp?a=hunter2,",
		"http://h:0/mcp?key=hunter2", "http://h/mcp?key=hunter2,b=http://h2/mcp?key=hunter2", "http://h/mcp#hunter2",
	} {
		if got := fmt.Sprint(refused(t, flags("upstream", upstream))); strings.Contains(got, "hunter2") {
			t.Errorf("%s: the error shows the password: %s", upstream, got)
		}
	}
}

func TestUnreadableFilesAreRefused(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for path, want := range map[string]string{
		missing:                             "no such file",
		t.TempDir():                         "is a directory",
		yamlFile(t, "a: b: c"):              "yaml",
		yamlFile(t, "- a\n- b"):             "holds no settings; want lines of name: value",
		yamlFile(t, "foo"):                  "holds no settings; want lines of name: value",
		yamlFile(t, "lease: 5s\nlease: 6s"): "lease: is set twice, again in line 2",
		yamlFile(t, "auth.mode: none\nauth: {mode: none}"):      "auth.mode: is set twice",
		yamlFile(t, "? [a]\n: b"):                               "has a key that is no name",
		yamlFile(t, "a: &a {b: *a}"):                            "unknown setting",
		yamlFile(t, "upstream: [http://h/mcp]\n---\na: b: c\n"): "yaml",
		yamlFile(t, "lease: 5s\n---\nmax_sessions: 5\n"):        "more than one YAML document",
	} {
		problems := refused(t, settings.Sources{File: path})
		if len(problems) != 1 || !strings.Contains(problems[0], path) || !strings.Contains(problems[0], want) {
			t.Errorf("%s: %q; want %q", path, problems, want)
		}
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "--- # nothing\n...\n"} {
		load(t, settings.Sources{File: yamlFile(t, empty)})
	}
}

func TestAFileTakesTheTextThatTheUserWrote(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"0x1", "1e0", "1.0", "+1", "01", "0o1", "1_000", "0b1", ".inf", "true", "2026-01-02", "!!int 0x1"} {
		problems := refused(t, settings.Sources{File: yamlFile(t, "max_sessions: "+text)})
		if len(problems) != 1 || !strings.Contains(problems[0], `max_sessions: "`+strings.TrimPrefix(text, "!!int ")+`"`) {
			t.Errorf("max_sessions: %s: %q", text, problems)
		}
	}
	for _, text := range []string{"7", `"7"`, "'7'", "&seven 7", "!!str 7", ">-\n  7"} {
		if got := load(t, settings.Sources{File: yamlFile(t, "max_sessions: "+text)}).Cluster.MaxSessions; got != 7 {
			t.Errorf("max_sessions: %s is read as %d", text, got)
		}
	}
	// What YAML would take for something else than text.
	got := load(t, settings.Sources{File: yamlFile(t, "prefix: 1.10\nreplica_id: 0x1F\nadmin_listen: off\nmax_body: &n 2048\nrequest_burst: *n\n")})
	if got.Prefix != "1.10" || got.ReplicaID != "0x1F" || got.AdminListen != "" || got.MaxBody != 2048 || got.Cluster.RequestBurst != 2048 {
		t.Errorf("%+v", got)
	}
}

func TestAGroupIsNoSetting(t *testing.T) {
	t.Parallel()
	for want, src := range map[string]settings.Sources{
		"auth: is no setting by itself; did you mean auth.mode?":                     {File: yamlFile(t, "auth: none")},
		"auth: is no setting by itself; did you mean auth.mode? (":                   {File: yamlFile(t, "auth: {}")},
		"SHADOWCAT_AUTH: is no setting by itself; did you mean SHADOWCAT_AUTH_MODE?": {Environ: []string{"SHADOWCAT_AUTH=none"}},
		"events: is no setting by itself; did you mean events.count?":                {File: yamlFile(t, "events: 5")},
		"frames: is no setting by itself; did you mean frames.count?":                {File: yamlFile(t, "frames: 5")},
	} {
		if problems := refused(t, src); len(problems) != 1 || !strings.HasPrefix(problems[0], want) {
			t.Errorf("%q, want %q", problems, want)
		}
	}
}

func TestVariablesThatKubernetesSetsForAServiceAreLeftAlone(t *testing.T) {
	t.Parallel()
	load(t, settings.Sources{Environ: []string{
		"SHADOWCAT_CLUSTER_SERVICE_HOST=10.0.0.1", "SHADOWCAT_CLUSTER_SERVICE_PORT=80", "SHADOWCAT_CLUSTER_SERVICE_PORT_HTTP=80",
		"SHADOWCAT_CLUSTER_PORT=tcp://10.0.0.1:80", "SHADOWCAT_CLUSTER_PORT_80_TCP=tcp://10.0.0.1:80",
		"SHADOWCAT_CLUSTER_PORT_80_TCP_ADDR=10.0.0.1", "SHADOWCAT_PORT=tcp://10.0.0.1:80",
	}})
	refused(t, settings.Sources{Environ: []string{"SHADOWCAT_SUPPORT=5"}})
}

func TestServeNeedsAnUpstream(t *testing.T) {
	t.Parallel()
	if err := load(t, settings.Sources{}).CheckServe(); err == nil || !strings.HasPrefix(err.Error(), "upstream: not set") {
		t.Errorf("CheckServe: %v", err)
	}
	if err := load(t, flags("upstream", "http://a/mcp")).CheckServe(); err != nil {
		t.Error(err)
	}
}

func TestServeNeedsTimeToDrain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		delay, timeout string
		enough         bool
	}{{"3s", "4s", true}, {"0", "1s", true}, {"3s", "3s999ms", false}, {"30s", "25s", false}} {
		err := load(t, flags("upstream", "http://a/mcp", "drain_delay", c.delay, "drain_timeout", c.timeout)).CheckServe()
		if (err == nil) != c.enough || err != nil && !strings.HasPrefix(err.Error(), "drain_timeout: ") {
			t.Errorf("drain_delay %s, drain_timeout %s: %v", c.delay, c.timeout, err)
		}
	}
}

func TestServeNeedsTwoAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		listen, admin string
		same          bool
	}{
		{"127.0.0.1:9081", "127.0.0.1:9081", true},
		{":9081", "127.0.0.1:9081", true},
		{"127.0.0.1:9081", "[::]:09081", true},
		{"127.0.0.1:9081", "127.0.0.2:9081", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{":8081", ":9081", false},
		{":8081", "off", false},
	} {
		s := load(t, flags("upstream", "http://a/mcp", "listen", c.listen, "admin_listen", c.admin))
		if err := s.CheckServe(); (err != nil) != c.same || c.same && !strings.HasPrefix(err.Error(), "admin_listen: "+c.admin+" is taken by listen (") {
			t.Errorf("listen %s, admin_listen %s: %v", c.listen, c.admin, err)
		}
	}
}

// A section whose first setting is renamed or moved would lose its heading, and with it its table's.
func TestTheDocumentationHasEverySectionItLinksTo(t *testing.T) {
	t.Parallel()
	document := settings.Document()
	links := regexp.MustCompile(`(?m)^- \[(.+)\]\(#([a-z-]+)\)$`).FindAllStringSubmatch(document, -1)
	if len(links) < 10 {
		t.Fatalf("there are %d links to sections", len(links))
	}
	for _, link := range links {
		if !strings.Contains(document, "\n\n## "+link[1]+"\n\n| setting |") {
			t.Errorf("there is no section %q", link[1])
		}
	}
	if first := strings.Index(document, "\n| `"); first < strings.Index(document, "\n## ") {
		t.Error("a setting comes before the first section")
	}
}

func TestTheDocumentationIsCurrent(t *testing.T) {
	t.Parallel()
	written, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(settings.Document(), string(written)); diff != "" {
		t.Errorf("docs/configuration.md is not what the table says; run go generate ./cmd/shadowcat-cluster/settings\n%s", diff)
	}
}
