package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/tapwire/shadowcat-cluster/admin"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/replica"
	"github.com/tapwire/shadowcat-cluster/proxy"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	// MaxReplicas is the most replicas that a demo runs.
	MaxReplicas = 16

	// maxBody is the longest body of a request, in bytes: the default of a replica.
	maxBody = 4 << 20

	// externalPrefix keeps a demo on somebody's own Redis apart from what else is there.
	externalPrefix = "shadowcat-demo"

	// pingTimeout is how long a Redis of the user's own may take to answer at start.
	pingTimeout = 5 * time.Second

	// storeTimeout is how long a replica waits for the store. It is more than a cluster's: all of the demo, its Redis
	// included, shares one machine with whatever else its user runs.
	storeTimeout = 2 * time.Second

	// stopTimeout is how long a replica may take to stop: its user waits at the terminal.
	stopTimeout = 5 * time.Second

	// embeddedURL asks for a Redis inside this process, as it does for other commands.
	embeddedURL = "embedded:"

	// loopback is the address of every part but the front: any free port, for this machine only.
	loopback = "127.0.0.1:0"
)

// inspectorOrigins are where the MCP Inspector's web page comes from when it connects without its own proxy.
var inspectorOrigins = []string{"http://localhost:6274", "http://127.0.0.1:6274"}

// Config says how the demo runs. The zero value of a field that has a default means the default.
type Config struct {
	Listen   string       // the front's address, host:port; port 0 takes a free one
	Replicas int          // 1 to [MaxReplicas]
	Redis    string       // a Redis URL; default: a Redis of its own, inside this process
	Build    admin.Build  // shown by the example server and the metrics
	Program  string       // how the user called this program; default: shadowcat-cluster
	Out      io.Writer    // where the welcome and the lines go; required
	Columns  int          // the width of the terminal that Out is; 0: it is none
	Colour   bool         // whether to write colours
	Logger   *slog.Logger // default: discards
}

// Validate reports everything that is wrong with c, by the names of the flags.
func (c Config) Validate() error {
	var errs []error
	if c.Replicas < 1 || c.Replicas > MaxReplicas {
		errs = append(errs, fmt.Errorf("--replicas: %d is not in 1 to %d replicas", c.Replicas, MaxReplicas))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen: %q is not host:port, such as 127.0.0.1:8080", c.Listen))
	}
	if c.Redis != "" && c.Redis != embeddedURL {
		store, err := redisstore.Open(c.Redis, redisstore.Options{Config: cluster.DefaultConfig()}) // connects to nothing
		if err != nil {
			errs = append(errs, fmt.Errorf("--redis: %w", err))
		} else {
			errs = append(errs, store.Close())
		}
	}
	return errors.Join(errs...)
}

// Demo is a demo whose addresses are taken and whose store answers. Its owner must call [Demo.Run] or [Demo.Close].
type Demo struct {
	config   Config
	style    style
	printer  *printer
	example  *example
	embedded *redisstore.Embedded // nil with a Redis of the user's own
	redisURL string

	front     net.Listener
	upstream  net.Listener
	replicas  []replicaParts
	closeWith []func() error // what was opened, in that order
}

// replicaParts is one replica and what it needs.
type replicaParts struct {
	replica  *replica.Replica
	store    *redisstore.Store
	listener net.Listener
	admin    net.Listener
}

// New takes every address and opens the store, so that what can go wrong at start goes wrong here. It fails, naming the
// flag to change, if the configuration is invalid, the address is taken, or the Redis does not answer.
func New(ctx context.Context, config Config) (*Demo, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config.Build.Version = cmp.Or(config.Build.Version, "dev")
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	style := styleFor(config.Columns, config.Colour)
	d := &Demo{config: config, style: style, printer: newPrinter(config.Out, style), example: newExample(config.Build.Version)}
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// open takes the addresses, the front's first: it is the one that may be in use.
func (d *Demo) open(ctx context.Context) error {
	var err error
	if d.front, err = d.listen(ctx, d.config.Listen); err != nil {
		return fmt.Errorf("--listen: %w; choose another address, such as --listen 127.0.0.1:0 for any free port", err)
	}
	if d.upstream, err = d.listen(ctx, loopback); err != nil {
		return fmt.Errorf("the example server's address: %w", err)
	}
	if err := d.openRedis(); err != nil {
		return err
	}
	for i := range d.config.Replicas {
		if err := d.openReplica(ctx, i); err != nil {
			return fmt.Errorf("%s: %w", replicaName(i), err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if err := d.replicas[0].store.Ping(ctx); err != nil {
		return fmt.Errorf("--redis %s does not answer; leave the flag out for an embedded one: %w", redisstore.RedactURL(d.redisURL), err)
	}
	return nil
}

func (d *Demo) listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	d.closeWith = append(d.closeWith, func() error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil // its server has closed it
	})
	return listener, nil
}

func (d *Demo) openRedis() error {
	if d.redisURL = d.config.Redis; d.redisURL != "" && d.redisURL != embeddedURL {
		return nil
	}
	embedded, err := redisstore.StartEmbedded()
	if err != nil {
		return fmt.Errorf("starting the embedded Redis: %w", err)
	}
	d.embedded, d.redisURL = embedded, embedded.URL()
	d.closeWith = append(d.closeWith, embedded.Close)
	return nil
}

// openReplica makes one replica with a store of its own, as if it were a process of its own.
func (d *Demo) openReplica(ctx context.Context, index int) error {
	limits := cluster.DefaultConfig()
	limits.StoreTimeout = storeTimeout
	store, err := redisstore.Open(d.redisURL, redisstore.Options{Prefix: d.prefix(), Config: limits, Logger: d.config.Logger})
	if err != nil {
		return fmt.Errorf("--redis: %w", err)
	}
	d.closeWith = append(d.closeWith, store.Close)
	parts := replicaParts{store: store}
	if parts.listener, err = d.listen(ctx, loopback); err != nil {
		return err
	}
	if parts.admin, err = d.listen(ctx, loopback); err != nil {
		return err
	}
	parts.replica, err = replica.New(replica.Config{
		ID:      replicaName(index),
		Store:   store,
		Cluster: limits,
		Proxy: proxy.Config{
			Upstreams:      []proxy.Upstream{{URL: &url.URL{Scheme: "http", Host: d.upstream.Addr().String(), Path: "/mcp"}}},
			AllowedOrigins: append(d.ownOrigins(), inspectorOrigins...),
			Listen:         d.front.Addr().String(), // what clients connect to
			MaxBody:        maxBody,
		},
		Build:       d.config.Build,
		Logger:      d.config.Logger,
		RequestDone: lineObserver{printer: d.printer, replica: index}.requestDone,
		Drain:       replica.Drain{Timeout: stopTimeout},
	})
	if err != nil {
		return err
	}
	d.replicas = append(d.replicas, parts)
	return nil
}

// prefix is what the store's keys start with; empty for the default.
func (d *Demo) prefix() string {
	if d.embedded != nil {
		return ""
	}
	return externalPrefix
}

// Endpoint is the URL that clients on this machine connect to.
func (d *Demo) Endpoint() string { return "http://" + d.frontHost() + "/mcp" }

// frontHost is the front's host:port as seen from this machine.
func (d *Demo) frontHost() string {
	address, err := netip.ParseAddrPort(d.front.Addr().String())
	if err != nil || !address.Addr().IsUnspecified() {
		return d.front.Addr().String()
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), address.Port()).String()
}

// ownOrigins are the origins of pages that would come from the front itself. There are none, but some clients that are no
// browsers name the server's own origin.
func (d *Demo) ownOrigins() []string {
	_, port, _ := net.SplitHostPort(d.frontHost()) // a host:port by construction
	return []string{"http://" + d.frontHost(), "http://localhost:" + port}
}

// isPublic reports whether other machines may reach the front.
func (d *Demo) isPublic() bool {
	address, err := netip.ParseAddrPort(d.front.Addr().String())
	return err != nil || !address.Addr().IsLoopback()
}

// Close gives back what New took. It is for a demo that does not run; Run ends with it.
func (d *Demo) Close() error {
	errs := []error{d.example.close()}
	for _, closeIt := range slices.Backward(d.closeWith) {
		errs = append(errs, closeIt())
	}
	d.closeWith = nil
	return errors.Join(errs...)
}

// Run prints the welcome and serves until ctx ends; then it ends requests and streams in flight, stops every part and
// returns nil. It fails when a part does. It must be called once.
func (d *Demo) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.welcome().write(d.config.Out, d.style); err != nil {
		return fmt.Errorf("printing the welcome: %w", err)
	}
	if _, err := fmt.Fprintln(d.config.Out, d.style.header()); err != nil {
		return fmt.Errorf("printing the header: %w", err)
	}
	replicas := make([]part, len(d.replicas))
	for i, r := range d.replicas {
		replicas[i] = part{name: replicaName(i), run: func(ctx context.Context) error {
			return r.replica.Run(ctx, r.listener, r.admin)
		}}
	}
	return runParts(ctx,
		part{name: "printing", run: d.printer.run},
		part{name: "example server", run: d.runExample},
		together("replicas", replicas...),
		part{name: "front", run: d.runFront},
		part{name: "farewell", run: d.runFarewell},
	)
}

func (d *Demo) runExample(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("/mcp", d.example.handler())
	return serveUntil(ctx, proxy.NewServer(mux, proxy.ServerLimits{}), d.upstream, d.example.close)
}

// runFarewell ends the line on which the terminal shows ^C, before the requests that are ended now are shown.
func (d *Demo) runFarewell(ctx context.Context) error {
	<-ctx.Done()
	d.printer.say("")
	return nil
}

func (d *Demo) runFront(ctx context.Context) error {
	addresses := make([]string, len(d.replicas))
	for i, r := range d.replicas {
		addresses[i] = r.listener.Addr().String()
	}
	front := newFront(addresses, maxBody, d.config.Logger)
	defer front.close()
	// A replica carries a call to its end even when the client has gone, so the calls must end for the replicas to.
	endCalls := func() error { d.example.stop(); return nil }
	return serveUntil(ctx, proxy.NewServer(front, proxy.ServerLimits{}), d.front, endCalls)
}

func (d *Demo) welcome() welcome {
	w := welcome{
		endpoint: d.Endpoint(),
		public:   d.isPublic(),
		redis:    redisstore.RedactURL(d.redisURL),
		embedded: d.embedded != nil,
		prefix:   d.prefix(),
		program:  cmp.Or(d.config.Program, "shadowcat-cluster"),
	}
	for _, r := range d.replicas {
		w.replicas = append(w.replicas, replicaPlace{
			mcp:     "http://" + r.listener.Addr().String() + "/mcp",
			metrics: "http://" + r.admin.Addr().String() + "/metrics",
		})
	}
	return w
}

// lineObserver turns what one replica's proxy reports into lines.
type lineObserver struct {
	printer *printer
	replica int
}

// requestDone shows one finished request.
func (o lineObserver) requestDone(info proxy.RequestInfo) {
	l := line{
		at: time.Now(), replica: o.replica,
		verb: info.Method, rpc: info.RPCMethod, status: info.Status, duration: info.Duration,
	}
	if info.Session != (cluster.ID{}) {
		l.session = info.Session.String()
	}
	o.printer.add(l)
}
