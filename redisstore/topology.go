package redisstore

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// acceptedURLs is what an error about a URL says; rediss… means TLS everywhere.
const acceptedURLs = "redis[s]://[user:password@]host:port[/database], redis[s]-sentinel://[user:password@]host:port,host:port/master, " +
	"redis[s]-cluster://[user:password@]host:port,host:port, or embedded:"

// EmbeddedURL runs a Redis work-alike inside the process.
const EmbeddedURL = "embedded:"

// DefaultClusterPartitions is the number of partitions on a Redis Cluster unless another is configured. Elsewhere it is
// one: then the cap and the order of eviction are exact over all sessions.
const DefaultClusterPartitions = 16

// clusterReload is how often a cluster client asks who serves which slots. The library's default of a minute leaves
// sessions unreachable for so long after a failover.
const clusterReload = time.Second

// topology is how the store's servers are arranged.
type topology int

const (
	standalone topology = iota
	sentinel
	clustered
)

func (t topology) defaultPartitions() int {
	if t == clustered {
		return DefaultClusterPartitions
	}
	return 1
}

// target is a store's address, parsed.
type target struct {
	topology topology
	options  redis.UniversalOptions
}

// parseURL reads a URL. Errors never hold its password.
func parseURL(raw string, timeout time.Duration) (target, error) {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		return target{}, fmt.Errorf("redis: the URL has no scheme and host; accepted are %s", acceptedURLs)
	}
	kind, isKnown := map[string]topology{"": standalone, "-sentinel": sentinel, "-cluster": clustered}[topologySuffix(scheme)]
	if !isKnown {
		return target{}, fmt.Errorf("redis: unknown scheme %q; accepted are %s", scheme, acceptedURLs)
	}
	u := splitURL(rest)
	t := target{topology: kind}
	query, err := url.ParseQuery(u.query)
	if err != nil {
		return target{}, badURL(raw, errors.New("its query cannot be parsed"))
	}
	if kind == sentinel {
		t.options.MasterName, u.path = u.path, ""
		t.options.SentinelUsername, t.options.SentinelPassword = query.Get("sentinel_username"), query.Get("sentinel_password")
		query.Del("sentinel_username")
		query.Del("sentinel_password")
	}
	if err := u.check(kind, t.options.MasterName); err != nil {
		return target{}, badURL(raw, err)
	}
	// The library reads one host; which one is of no matter for everything else that a URL says.
	single := strings.TrimSuffix(strings.TrimSuffix(scheme, "-sentinel"), "-cluster") + "://" + u.user + u.hosts[0] + "/" + u.path
	if len(query) > 0 {
		single += "?" + query.Encode()
	}
	options, err := redis.ParseURL(single)
	if err != nil || options.DB < 0 {
		// The library's error is not shown: it quotes what may be a piece of a password.
		return target{}, badURL(raw, errors.New("its port, database or options cannot be understood"))
	}
	t.configure(options, u.hosts, timeout)
	return t, nil
}

// topologySuffix returns what follows redis or rediss in a scheme, and something unknown for any other scheme.
func topologySuffix(scheme string) string {
	if suffix, ok := strings.CutPrefix(scheme, "rediss"); ok {
		return suffix
	}
	if suffix, ok := strings.CutPrefix(scheme, "redis"); ok {
		return suffix
	}
	return "?"
}

// parts are the parts of a URL behind its scheme. Several hosts make it none that net/url reads.
type parts struct {
	user  string // with the @ at its end
	hosts []string
	path  string // without the slash at its start
	query string
}

func splitURL(rest string) parts {
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	var user string
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, authority = authority[:at+1], authority[at+1:]
	}
	return parts{user: user, hosts: strings.Split(authority, ","), path: path, query: query}
}

func (u parts) check(kind topology, master string) error {
	switch {
	case strings.ContainsAny(u.path+u.query, "@#") || strings.Contains(strings.Join(u.hosts, ""), "#") || strings.Contains(u.user, "#"):
		return errors.New("a character of it is where none may be")
	case kind == standalone && len(u.hosts) > 1:
		return errors.New("several hosts need redis-sentinel:// or redis-cluster://")
	case kind == sentinel && master == "":
		return errors.New("the path must name the master that the sentinels watch, as in redis-sentinel://a:26379,b:26379/mymaster")
	case kind == clustered && u.path != "":
		return errors.New("a Redis Cluster has no databases")
	}
	if slices.Contains(u.hosts, "") {
		return errors.New("a host is missing")
	}
	for _, address := range withPorts(u.hosts, kind) {
		_, port, err := net.SplitHostPort(address)
		if n, errPort := strconv.ParseUint(port, 10, 16); err != nil || errPort != nil || n == 0 {
			return errors.New("a host needs a port from 1 to 65535")
		}
	}
	return nil
}

// configure sets what the store relies on, whatever the URL says of it.
func (t *target) configure(o *redis.Options, hosts []string, timeout time.Duration) {
	t.options = redis.UniversalOptions{
		Addrs:            withPorts(hosts, t.topology),
		MasterName:       t.options.MasterName,
		SentinelUsername: t.options.SentinelUsername,
		SentinelPassword: t.options.SentinelPassword,
		Username:         o.Username,
		Password:         o.Password,
		DB:               o.DB,
		TLSConfig:        o.TLSConfig,
		PoolSize:         o.PoolSize,
		MinIdleConns:     o.MinIdleConns,
		// A retry after a lost reply would run a script twice.
		MaxRetries:            -1,
		DialerRetries:         1,
		ContextTimeoutEnabled: true,
		DialTimeout:           timeout,
		ReadTimeout:           timeout,
		WriteTimeout:          timeout,
		PoolTimeout:           timeout,
		// Behind a DNS name a connection would go on to a demoted server for ever.
		ConnMaxLifetime:          10 * time.Minute,
		ConnMaxLifetimeJitter:    time.Minute,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if t.options.TLSConfig != nil && t.topology != standalone {
		t.options.TLSConfig.ServerName = "" // each server is verified by its own name, which the URL need not have
	}
}

// withPorts adds the usual port to hosts without one.
func withPorts(hosts []string, kind topology) []string {
	port := ":6379"
	if kind == sentinel {
		port = ":26379"
	}
	addresses := make([]string, len(hosts))
	for i, host := range hosts {
		if strings.LastIndexByte(host, ':') <= strings.LastIndexByte(host, ']') {
			host += port
		}
		addresses[i] = host
	}
	return addresses
}

// client returns a client that has not connected yet. Its connections will be among those known.
func (t *target) client(known *connections) redis.UniversalClient {
	t.options.Dialer = known.dialer(redis.NewDialer(&redis.Options{DialTimeout: t.options.DialTimeout, TLSConfig: t.options.TLSConfig}))
	switch t.topology {
	case sentinel:
		return redis.NewFailoverClient(t.options.Failover())
	case clustered:
		options := t.options.Cluster()
		options.ClusterStateReloadInterval = clusterReload
		return redis.NewClusterClient(options)
	default:
		return redis.NewClient(t.options.Simple())
	}
}

// RedactURL returns a URL that is safe to log: user, password and query are gone. A password may hold any character that
// should have been encoded, so all up to the last @ goes.
func RedactURL(raw string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if raw == EmbeddedURL {
		return raw
	}
	if !found || topologySuffix(scheme) == "?" {
		return "(unreadable URL)"
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	rest, _, _ = strings.Cut(rest, "?")
	return scheme + "://" + rest
}

func badURL(raw string, err error) error {
	return fmt.Errorf("redis: %s is no Redis URL: %w (user and password must be percent-encoded); accepted are %s", RedactURL(raw), err, acceptedURLs)
}
