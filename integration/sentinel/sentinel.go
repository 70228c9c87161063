// Package sentinel runs a Redis with replicas and the sentinels that watch it, all of one's own: real processes on free
// loopback ports, in temporary folders, gone afterwards.
package sentinel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/integration/authority"
	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// Master is the name under which the sentinels know the primary.
const Master = "main"

const (
	replicas  = 2
	sentinels = 3
	quorum    = 2

	healthyTimeout = 30 * time.Second
	startTries     = 3
)

// Options say how the topology behaves.
type Options struct {
	// DownAfter is how long a server may be silent before it counts as down. Default: 1 s.
	DownAfter time.Duration
	// Users are ACL users of all data servers, as in redisserver.Options. The sentinels themselves use the default user.
	Users []string
	// SentinelUsers are ACL users of the sentinels.
	SentinelUsers []string
	// TLS makes servers and sentinels speak TLS alone, with whom this authority has certified. Default: no TLS.
	TLS *authority.Authority
}

// Topology is one primary, two replicas and three sentinels. It is not for use by several goroutines at once.
type Topology struct {
	servers   []*redisserver.Server
	sentinels []*process.Process
	addresses []string // of the sentinels
	dir       string
	files     authority.Files // of the sentinels, with TLS
	tls       *tls.Config     // of clients; nil without TLS
}

// Start starts everything and waits until it is healthy. It returns redisserver.ErrNotInstalled when there is no
// redis-server. The caller must call Close.
func Start(ctx context.Context, options Options) (*Topology, error) {
	var failed error
	for range startTries { // another program may take a port before Redis does
		t, err := start(ctx, options)
		if err == nil {
			return t, nil
		}
		if failed = errors.Join(err, t.Close()); !errors.Is(failed, process.ErrAddressInUse) {
			break
		}
	}
	return nil, failed
}

func start(ctx context.Context, options Options) (*Topology, error) {
	if options.DownAfter == 0 {
		options.DownAfter = time.Second
	}
	t := &Topology{}
	for range 1 + replicas {
		server, err := redisserver.Start(ctx, redisserver.Options{Users: options.Users, TLS: options.TLS, Args: []string{"--repl-ping-replica-period", "1"}})
		if err != nil {
			return t, err
		}
		t.servers = append(t.servers, server)
	}
	primary := t.servers[0]
	for _, replica := range t.servers[1:] {
		if err := replica.Replicate(ctx, primary); err != nil {
			return t, err
		}
	}
	// A sentinel looks for replicas when it starts, and then only every ten seconds.
	if err := wait(ctx, func(ctx context.Context) error { return primary.CheckPrimary(ctx, replicas) }); err != nil {
		return t, err
	}
	var err error
	if t.dir, err = os.MkdirTemp("", "shadowcat-sentinel-"); err != nil {
		return t, fmt.Errorf("make a folder for the sentinels: %w", err)
	}
	if err := t.certify(options.TLS); err != nil {
		return t, err
	}
	for i := range sentinels {
		if err := t.startSentinel(ctx, i, primary.Address(), options); err != nil {
			return t, err
		}
	}
	err = t.WaitHealthy(ctx)
	return t, err
}

// certify gets the sentinels their certificate, if they need one.
func (t *Topology) certify(by *authority.Authority) (err error) {
	if by == nil {
		return nil
	}
	if t.files, err = by.Issue(t.dir, "sentinel"); err != nil {
		return err
	}
	t.tls, err = t.files.ClientConfig()
	return err
}

// startSentinel writes a configuration, which the sentinel keeps rewriting, and starts it.
func (t *Topology) startSentinel(ctx context.Context, i int, primary string, options Options) error {
	executable, err := exec.LookPath("redis-server")
	if err != nil {
		return redisserver.ErrNotInstalled
	}
	address, err := process.FreeAddress()
	if err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(address) // made by FreeAddress, so well formed
	primaryHost, primaryPort, _ := net.SplitHostPort(primary)
	lines := []string{
		"bind " + host, "dir " + t.dir,
		fmt.Sprintf("sentinel monitor %s %s %s %d", Master, primaryHost, primaryPort, quorum),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", Master, options.DownAfter.Milliseconds()),
		// Also twice the time after which a failed attempt is repeated.
		fmt.Sprintf("sentinel failover-timeout %s %d", Master, 3*options.DownAfter.Milliseconds()),
		fmt.Sprintf("sentinel parallel-syncs %s %d", Master, replicas),
	}
	if t.tls == nil {
		lines = append(lines, "port "+port)
	} else {
		lines = append(lines, "port 0", "tls-port "+port)
		for _, argument := range t.files.RedisArguments() {
			lines = append(lines, argument[0]+" "+argument[1])
		}
	}
	for _, user := range options.SentinelUsers {
		lines = append(lines, "user "+user)
	}
	config := filepath.Join(t.dir, fmt.Sprintf("sentinel-%d.conf", i))
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("write a sentinel's configuration: %w", err)
	}
	started, err := process.Start(process.Command{
		Name: "sentinel at " + address, Path: executable, Args: []string{config, "--sentinel"}, Dir: t.dir,
	})
	if err != nil {
		return err
	}
	t.sentinels = append(t.sentinels, started)
	t.addresses = append(t.addresses, address)
	ctx, cancel := context.WithTimeout(ctx, healthyTimeout)
	defer cancel()
	return started.WaitReady(ctx, process.Listening(address))
}

// URL is the topology as a redis-sentinel:// or, with TLS, a rediss-sentinel:// URL, for a user of the data servers (nil for the default one).
func (t *Topology) URL(user *url.Userinfo) string {
	login := ""
	if user != nil {
		login = user.String() + "@"
	}
	return t.servers[0].Scheme() + "-sentinel://" + login + strings.Join(t.addresses, ",") + "/" + Master
}

// Servers are the data servers, in no order.
func (t *Topology) Servers() []*redisserver.Server { return t.servers }

// Sentinels are the addresses of the sentinels.
func (t *Topology) Sentinels() []string { return t.addresses }

// Primary asks a sentinel which server is the primary now.
func (t *Topology) Primary(ctx context.Context) (*redisserver.Server, error) {
	return t.primaryBy(ctx, t.addresses[0])
}

func (t *Topology) primaryBy(ctx context.Context, sentinel string) (*redisserver.Server, error) {
	client := t.client(sentinel)
	defer func() { _ = client.Close() }()
	answer, err := client.GetMasterAddrByName(ctx, Master).Result()
	if err != nil {
		return nil, fmt.Errorf("ask the sentinel at %s for the primary: %w", sentinel, err)
	}
	address := net.JoinHostPort(answer[0], answer[1])
	for _, server := range t.servers {
		if server.Address() == address {
			return server, nil
		}
	}
	return nil, fmt.Errorf("the sentinel at %s names %s, which is no server of this topology", sentinel, address)
}

// WaitReplicated returns once every replica has all that the primary has acknowledged so far.
func (t *Topology) WaitReplicated(ctx context.Context) error {
	primary, err := t.Primary(ctx)
	if err != nil {
		return err
	}
	return primary.WaitReplicated(ctx, replicas)
}

// Restore starts the servers that were killed as replicas of the primary of now, and waits until the
// topology is healthy. It must not be called before the sentinels have elected that primary: a server without persistence
// comes back empty, and so would be its replicas.
func (t *Topology) Restore(ctx context.Context) error {
	primary, err := t.Primary(ctx)
	if err != nil {
		return err
	}
	if !primary.Running() {
		return fmt.Errorf("restore: the primary of record, %s, is dead; wait for another first", primary.Address())
	}
	for _, server := range t.servers {
		if server.Running() {
			continue
		}
		if err := server.Start(ctx); err != nil {
			return err
		}
		if err := server.Replicate(ctx, primary); err != nil {
			return err
		}
	}
	return t.WaitHealthy(ctx)
}

// WaitHealthy waits until all sentinels know each other and agree on a primary that has all its replicas, at most 30 s.
func (t *Topology) WaitHealthy(ctx context.Context) error { return wait(ctx, t.healthy) }

func wait(ctx context.Context, probe process.Probe) error {
	ctx, cancel := context.WithTimeoutCause(ctx, healthyTimeout, errors.New("the topology was not healthy within "+healthyTimeout.String()))
	defer cancel()
	return process.Poll(ctx, probe)
}

func (t *Topology) healthy(ctx context.Context) error {
	var primary *redisserver.Server
	for _, address := range t.addresses {
		named, err := t.primaryBy(ctx, address)
		if err != nil {
			return err
		}
		if primary != nil && named != primary {
			return fmt.Errorf("the sentinels name two primaries: %s and %s", primary.Address(), named.Address())
		}
		primary = named
		if err := t.watched(ctx, address); err != nil {
			return err
		}
	}
	return primary.CheckPrimary(ctx, replicas)
}

// watched looks whether a sentinel knows the others and all replicas, and finds nobody down.
func (t *Topology) watched(ctx context.Context, address string) error {
	client := t.client(address)
	defer func() { _ = client.Close() }()
	master, err := client.Master(ctx, Master).Result()
	if err != nil {
		return fmt.Errorf("ask the sentinel at %s what it watches: %w", address, err)
	}
	known, others, flags := master["num-slaves"], master["num-other-sentinels"], master["flags"]
	if known != strconv.Itoa(replicas) || others != strconv.Itoa(sentinels-1) || flags != "master" {
		return fmt.Errorf("the sentinel at %s knows %s replicas and %s other sentinels, the primary's flags are %q", address, known, others, flags)
	}
	nodes, err := client.Replicas(ctx, Master).Result()
	if err != nil {
		return fmt.Errorf("ask the sentinel at %s for the replicas: %w", address, err)
	}
	for _, node := range nodes {
		if node["flags"] != "slave" {
			return fmt.Errorf("the sentinel at %s sees the replica %s as %q", address, node["name"], node["flags"])
		}
	}
	return nil
}

func (t *Topology) client(address string) *redis.SentinelClient {
	return redis.NewSentinelClient(&redis.Options{
		Addr: address, TLSConfig: t.tls, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
	})
}

// Close ends everything and removes the folders.
func (t *Topology) Close() error {
	for _, s := range t.sentinels { // first, so that they see nobody die
		s.Kill()
	}
	var errs []error
	for _, server := range t.servers {
		errs = append(errs, server.Close())
	}
	if t.dir != "" {
		if err := os.RemoveAll(t.dir); err != nil {
			errs = append(errs, fmt.Errorf("remove the folder of the sentinels: %w", err))
		}
	}
	return errors.Join(errs...)
}
