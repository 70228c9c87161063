package redisstore

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const acceptedURLs = "redis://[user:password@]host:port[/database], rediss:// for TLS, or embedded:"

// EmbeddedURL runs a Redis work-alike inside the process.
const EmbeddedURL = "embedded:"

// parseURL turns a redis:// or rediss:// URL into client options. Errors never hold the URL's password.
func parseURL(raw string, timeout time.Duration) (*redis.Options, error) {
	scheme, _, found := strings.Cut(raw, ":")
	switch {
	case !found:
		return nil, fmt.Errorf("redis: the URL has no scheme; accepted are %s", acceptedURLs)
	case scheme == "redis-sentinel" || scheme == "redis-cluster":
		return nil, fmt.Errorf("redis: %s:// is %w; accepted are %s", scheme, cluster.ErrNotSupported, acceptedURLs)
	case scheme != "redis" && scheme != "rediss":
		return nil, fmt.Errorf("redis: unknown scheme %q; accepted are %s", scheme, acceptedURLs)
	}
	options, err := redis.ParseURL(raw)
	if err != nil {
		return nil, fmt.Errorf("redis: %s is no Redis URL: %w; accepted are %s", RedactURL(raw), withoutURL(err), acceptedURLs)
	}
	configureClient(options, timeout)
	return options, nil
}

// configureClient sets what the store relies on. A client's own retries would run a script again after a lost reply, so
// there are none.
func configureClient(o *redis.Options, timeout time.Duration) {
	o.MaxRetries = -1
	o.DialerRetries = 1
	o.ContextTimeoutEnabled = true
	o.DialTimeout = timeout
	o.ReadTimeout = timeout
	o.WriteTimeout = timeout
	o.PoolTimeout = timeout
	// Behind a DNS name a connection would go on to a demoted server for ever.
	o.ConnMaxLifetime = 10 * time.Minute
	o.ConnMaxLifetimeJitter = time.Minute
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// RedactURL returns a URL that is safe to log: user, password and query are gone.
func RedactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable URL)"
	}
	if u.Opaque != "" || u.Host == "" {
		return u.Scheme + ":"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// withoutURL drops the URL that net/url puts into its errors, and the text that the client quotes.
func withoutURL(err error) error {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		// The cause may quote a part of the URL, such as a port that is really a piece of a password.
		if strings.Contains(parse.Err.Error(), "port") {
			return errors.New("invalid port after host (percent-encode special characters of the password)")
		}
		return errors.New("it cannot be parsed (percent-encode special characters of the password)")
	}
	return err
}
