package proxy

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/proxy/auth"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
)

// Defaults of Config.
const (
	DefaultMaxBody           = 4 << 20
	DefaultInitializeTimeout = 30 * time.Second
	DefaultBodyTimeout       = 30 * time.Second
	DefaultWriteTimeout      = 30 * time.Second
	DefaultDialTimeout       = 2 * time.Second
	DefaultCheckTimeout      = 2 * time.Second
	DefaultEndTimeout        = 3 * time.Second
	DefaultFollowInterval    = 100 * time.Millisecond
	DefaultKeepAlive         = 15 * time.Second
	DefaultKeepAfter         = time.Second
)

// Upstream is an MCP server: one endpoint or several, each of which serves the sessions that were opened there.
type Upstream struct {
	// Name is the first part of the path it is served at: /<name>/mcp. The one upstream without a name is served at /mcp.
	// Letters, digits, dash, underscore and dot, at most 63.
	Name string
	// URL is the server's MCP endpoint: http or https, without user, password and fragment. A query is kept. With dns+
	// before the scheme each address of the host is an endpoint, looked up every five seconds and dialled directly, not
	// through a proxy of the environment; what they are sent names the host, not the address.
	URL *url.URL
	// More are the URLs of further endpoints, at most 255. They differ in host, port or path. None beside dns+.
	More []*url.URL
}

// Config configures a Proxy. Everything but Upstreams may be left zero; a negative number or duration is an error.
type Config struct {
	Upstreams []Upstream

	// AllowedOrigins are the web origins (such as https://app.example) whose pages may use the proxy; they also get CORS
	// headers. "*" allows all. When empty, a request that names an origin must name that of its own Host.
	AllowedOrigins []string
	// AllowedHosts are the values of Host that are served, without port for any port. "*" allows all. When empty, all are,
	// unless Listen is a loopback address: then Host must be one too, which stops DNS rebinding.
	AllowedHosts []string
	// Listen is the address that clients connect to. It is only looked at, for the rule above.
	Listen string

	// Capacity bounds what the proxy has in hand at once. Default: nothing does.
	Capacity Capacity
	// MaxBody is the most bytes a request's body may have, and the most that is read of an upstream's answer to
	// initialize. Default 4 MiB.
	MaxBody int64
	// MaxHeader is the most bytes a request's header may have; see [ServerLimits]. Default 128 KiB.
	MaxHeader int
	// InitializeTimeout bounds initialize, from the first byte forwarded to the end of the answer, and how long an upstream may take to
	// accept a message that needs none. Default 30s.
	InitializeTimeout time.Duration
	// BodyTimeout is how long a client may take to send a request's body. Default 30s.
	BodyTimeout time.Duration
	// WriteTimeout is how long a client may take to accept one piece of an answer. An idle stream never exceeds it.
	// Default 30s.
	WriteTimeout time.Duration
	// DialTimeout bounds connecting to an upstream, and once more its TLS handshake. Default 2s: the first packet of a connection may get
	// lost, which systems notice after a second, and who waits longer waits for an endpoint that is away while others are well.
	DialTimeout time.Duration
	// EndTimeout bounds the attempt to end a session at its upstream. Default 3s.
	EndTimeout time.Duration
	// CheckInterval is how often each endpoint is asked whether it answers, while RunEndpoints runs; one that leaves three checks in a row
	// unanswered gets no new sessions, and loses those that it has to others that are well. Default: never; that an endpoint fails is
	// found out by the requests sent to it, which do not tell one that hangs from one that takes its time, but for initialize.
	CheckInterval time.Duration
	// CheckTimeout is how long an endpoint may take to answer a check. Default 2s.
	CheckTimeout time.Duration
	// NoRecover leaves sessions that their upstream has lost ended, instead of initializing them anew.
	NoRecover bool
	// FollowInterval is how often the streams of sessions that another replica reads from the upstream are looked at.
	// Default 100ms.
	FollowInterval time.Duration
	// KeepAlive is the longest silence of an event stream: a comment is sent then. Default 15s.
	KeepAlive time.Duration
	// KeepAfter is how long an answer's stream goes on before all of it is stored, so that its client may resume it at any replica;
	// one whose client leaves is stored at once. Default 1s.
	KeepAfter time.Duration
	// NoKeepAlive leaves silent streams silent.
	NoKeepAlive bool

	// Resolver looks up the hosts of dns+ upstreams. Default: [net.DefaultResolver].
	Resolver Resolver
	// TLS is for connections to https upstreams; its ServerName is not used. Default: the system's authorities.
	TLS *tls.Config

	// InOutage tells which faults of the store are an outage, of which whoever runs the replica is told without the Proxy: they are logged
	// at debug. Default: none are.
	InOutage cluster.InOutage
	// Auth finds out who requests are from, and so whom sessions belong to. Run it beside the proxy. Default: nobody is asked.
	Auth *auth.Gate
	// Recorder records the messages of sessions. Default: none are. Run it beside the proxy.
	Recorder *record.Recorder
	// Logger default: discards.
	Logger *slog.Logger
	// Tracing is given a span of each request, and of what is asked of upstreams for it. Default: nothing is traced, which costs
	// nothing.
	Tracing trace.TracerProvider
	// Observer is told of each finished request. Default: none.
	Observer Observer
	// ReplicaID names this replica in logs. Default: none.
	ReplicaID string
}

// withDefaults returns c with defaults for what is zero.
func (c Config) withDefaults() Config {
	c.MaxBody = cmp.Or(c.MaxBody, DefaultMaxBody)
	c.MaxHeader = cmp.Or(c.MaxHeader, DefaultMaxHeader)
	c.InitializeTimeout = cmp.Or(c.InitializeTimeout, DefaultInitializeTimeout)
	c.BodyTimeout = cmp.Or(c.BodyTimeout, DefaultBodyTimeout)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, DefaultWriteTimeout)
	c.DialTimeout = cmp.Or(c.DialTimeout, DefaultDialTimeout)
	c.CheckTimeout = cmp.Or(c.CheckTimeout, DefaultCheckTimeout)
	c.EndTimeout = cmp.Or(c.EndTimeout, DefaultEndTimeout)
	c.FollowInterval = cmp.Or(c.FollowInterval, DefaultFollowInterval)
	c.KeepAlive = cmp.Or(c.KeepAlive, DefaultKeepAlive)
	c.KeepAfter = cmp.Or(c.KeepAfter, DefaultKeepAfter)
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	if c.Auth == nil {
		c.Auth = auth.Off()
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.ReplicaID != "" {
		c.Logger = c.Logger.With("replica", c.ReplicaID)
	}
	if c.Observer == nil {
		c.Observer = noObserver{}
	}
	return c
}

// Validate reports everything that is wrong with c. It never prints an upstream's URL.
func (c Config) Validate() error {
	var errs []error
	if len(c.Upstreams) == 0 {
		errs = append(errs, errors.New("upstream: none is configured, at least one is needed"))
	}
	names := make(map[string]bool)
	for _, u := range c.Upstreams {
		if names[u.Name] {
			errs = append(errs, fmt.Errorf("upstream %q: configured twice", u.Name))
		}
		names[u.Name] = true
		errs = append(errs, u.validate())
	}
	for _, origin := range c.AllowedOrigins {
		if origin != "*" && !isOrigin(origin) {
			errs = append(errs, fmt.Errorf("allowed_origins: %q is no origin: want * or scheme://host[:port], such as https://app.example", origin))
		}
	}
	for _, host := range c.AllowedHosts {
		if host != "*" && !isHost(host) {
			errs = append(errs, fmt.Errorf("allowed_hosts: %q is no host: want *, host or host:port, such as mcp.example", host))
		}
	}
	if c.Capacity.Requests < 0 || c.Capacity.Bytes < 0 || c.Capacity.Streams < 0 {
		errs = append(errs, fmt.Errorf("%s, %s, %s: one is negative", limitRequests, limitBytes, limitStreams))
	}
	if c.MaxBody < 0 {
		errs = append(errs, fmt.Errorf("max_body: %d is negative", c.MaxBody))
	}
	if c.MaxHeader < 0 {
		errs = append(errs, fmt.Errorf("max_header: %d is negative", c.MaxHeader))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"initialize_timeout", c.InitializeTimeout},
		{"body_timeout", c.BodyTimeout},
		{"write_timeout", c.WriteTimeout},
		{"dial_timeout", c.DialTimeout},
		{"end_timeout", c.EndTimeout},
		{"upstream_check_interval", c.CheckInterval},
		{"check_timeout", c.CheckTimeout},
		{"follow_interval", c.FollowInterval},
		{"stream_keep_alive", c.KeepAlive},
	} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s: %v is negative", d.name, d.value))
		}
	}
	return errors.Join(errs...)
}

var validName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$`)

func (u Upstream) validate() error {
	switch {
	case u.Name != "" && !validName.MatchString(u.Name):
		return fmt.Errorf("upstream %q: a name has 1 to 63 letters, digits, dashes, underscores and dots, no dot first", u.Name)
	case u.URL == nil:
		return fmt.Errorf("upstream %q: it has no URL", u.Name)
	case len(u.More) > 0 && u.isNamed():
		return fmt.Errorf("upstream %q: a dns+ URL stands for all addresses of its host, so it must be the only one", u.Name)
	case len(u.More) >= maxEndpoints:
		return fmt.Errorf("upstream %q: it has %d endpoints, more than %d", u.Name, len(u.More)+1, maxEndpoints)
	}
	for i, target := range u.targets() {
		if err := validTarget(target, i == 0); err != nil {
			return fmt.Errorf("upstream %q: %w", u.Name, err)
		}
	}
	names := u.endpointNames()
	if hasTwice(names) {
		return fmt.Errorf("upstream %q: two of its endpoints have the same host, port and path", u.Name)
	}
	for _, name := range names {
		if len(name) > maxEndpointName {
			return fmt.Errorf("upstream %q: the URL of an endpoint has %d bytes before the query, more than %d", u.Name, len(name), maxEndpointName)
		}
	}
	return nil
}

// validTarget checks an endpoint's URL, which it never prints. mayBeNamed allows dns+.
func validTarget(u *url.URL, mayBeNamed bool) error {
	if u == nil {
		return errors.New("an endpoint has no URL")
	}
	scheme, named := strings.CutPrefix(u.Scheme, schemeDNS)
	switch {
	case u.Host == "" || u.Hostname() == "" || scheme != "http" && scheme != "https":
		return errors.New("its URL must be http://host[:port]/path or https://…, or the same with dns+ before it")
	case named && !mayBeNamed:
		return errors.New("a dns+ URL stands for all addresses of its host, so it must be the only one")
	case !validPort(u.Port()):
		return errors.New("the port in its URL is not 1 to 65535")
	case u.User != nil:
		return errors.New("a user or password in its URL is not supported")
	case u.Fragment != "":
		return errors.New("its URL has a fragment, which no server sees")
	}
	return nil
}

// validPort reports whether a URL's port is one, or left to the scheme.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// Path is where the upstream is served.
func (u Upstream) Path() string {
	if u.Name == "" {
		return "/mcp"
	}
	return "/" + u.Name + "/mcp"
}

func isOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && u.Host != "" && s == u.Scheme+"://"+u.Host
}

func isHost(s string) bool {
	return s != "" && !strings.ContainsAny(s, "/ @?#*") && hostOnly(s) != ""
}

// hostOnly returns a host without port and brackets.
func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

// lower returns the values in lower case.
func lower(values []string) []string {
	values = slices.Clone(values)
	for i, v := range values {
		values[i] = strings.ToLower(v)
	}
	return values
}
