// Package redisserver runs a redis-server of one's own: on a free loopback port, in a temporary folder, gone afterwards.
package redisserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/integration/authority"
	"github.com/tapwire/shadowcat-cluster/integration/process"
)

// ErrNotInstalled says that there is no redis-server on PATH.
var ErrNotInstalled = errors.New("redis-server is not on PATH: install it (Debian: apt-get install redis-server)")

const (
	startTimeout = 10 * time.Second
	stopGrace    = 5 * time.Second
	startTries   = 3
)

// Options say what kind of server to run. The zero value is an empty server without persistence and without a memory limit.
type Options struct {
	// MaxMemory is Redis's maxmemory, such as "4mb". Default: no limit. The policy is always noeviction.
	MaxMemory string
	// Persistent makes the data outlive a restart (an append-only file, synced at every write).
	Persistent bool
	// Users are ACL users beside the default one, each as in a redis.conf: "name on >password ~prefix:* +get". They are there
	// again after a restart.
	Users []string
	// TLS makes the server speak TLS alone, with clients that this authority has certified. Default: no TLS.
	TLS *authority.Authority
	// Clock is what the server goes by, after restarts, too. It must not be closed before the server. Default: the real time.
	Clock *Clock
	// Args are further arguments of redis-server.
	Args []string
}

// Server is a redis-server that may be started and stopped several times, always at the same address. It is not for use
// by several goroutines at once.
type Server struct {
	executable string
	address    string
	dir        string
	options    Options
	process    *process.Process
	files      authority.Files // with TLS
	tls        *tls.Config     // of clients; nil without TLS
}

// New chooses an address and a folder without starting anything, for those who want to see what happens without Redis. It
// returns ErrNotInstalled when there is no redis-server. The caller must call Close.
func New(options Options) (*Server, error) {
	executable, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, ErrNotInstalled
	}
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "shadowcat-redis-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for redis-server: %w", err)
	}
	s := &Server{executable: executable, address: address, dir: dir, options: options}
	if err := s.certify(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// certify gets the server its certificate, if it needs one.
func (s *Server) certify() (err error) {
	if s.options.TLS == nil {
		return nil
	}
	if s.files, err = s.options.TLS.Issue(s.dir, "redis-server"); err != nil {
		return err
	}
	s.tls, err = s.files.ClientConfig()
	return err
}

// Start starts a new server and waits until it answers. The caller must call Close.
func Start(ctx context.Context, options Options) (*Server, error) {
	var failed error
	for range startTries { // another program may take the port before Redis does
		server, err := New(options)
		if err != nil {
			return nil, err
		}
		if failed = server.Start(ctx); failed == nil {
			return server, nil
		}
		failed = errors.Join(failed, server.Close())
		if !errors.Is(failed, process.ErrAddressInUse) {
			break
		}
	}
	return nil, failed
}

// Start starts the server and waits until it answers PING.
func (s *Server) Start(ctx context.Context) error {
	if s.process != nil && s.process.Running() {
		return fmt.Errorf("start redis-server at %s: it is running", s.address)
	}
	started, err := process.Start(process.Command{
		Name: "redis-server at " + s.address, Path: s.executable, Args: s.arguments(), Dir: s.dir, Env: s.options.Clock.environment(),
	})
	if err != nil {
		return err
	}
	s.process = started
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client := s.Client()
	defer client.Close()
	err = started.WaitReady(ctx, func(ctx context.Context) error {
		// Asked only once something listens: the Redis client logs each failed dial.
		if err := process.Listening(s.address)(ctx); err != nil {
			return err
		}
		return client.Ping(ctx).Err()
	})
	if err != nil {
		return err
	}
	return s.options.Clock.check(ctx, client)
}

func (s *Server) arguments() []string {
	host, port, _ := net.SplitHostPort(s.address) // made by FreeAddress, so well formed
	args := []string{"--bind", host, "--dir", s.dir, "--daemonize", "no", "--save", "", "--maxmemory-policy", "noeviction"}
	if s.tls == nil {
		args = append(args, "--port", port)
	} else {
		args = append(args, "--port", "0", "--tls-port", port)
		for _, argument := range s.files.RedisArguments() {
			args = append(args, "--"+argument[0], argument[1])
		}
	}
	if s.options.MaxMemory != "" {
		args = append(args, "--maxmemory", s.options.MaxMemory)
	}
	if s.options.Persistent {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	} else {
		args = append(args, "--appendonly", "no")
	}
	args = append(args, fullSyncAtOnce...)
	for _, user := range s.options.Users {
		args = append(append(args, "--user"), strings.Fields(user)...)
	}
	return append(args, s.options.Args...)
}

// Address is the server's "host:port".
func (s *Server) Address() string { return s.address }

// URL is the server's address as a redis:// URL, or a rediss:// one.
func (s *Server) URL() string { return s.Scheme() + "://" + s.address }

// Scheme is what a URL of the server begins with: redis, or rediss with TLS.
func (s *Server) Scheme() string {
	if s.tls != nil {
		return "rediss"
	}
	return "redis"
}

// TLSConfig is how clients connect; nil without TLS.
func (s *Server) TLSConfig() *tls.Config { return s.tls }

// Client returns a new client of the server. The caller must close it.
func (s *Server) Client() *redis.Client {
	// Without retries a test sees what the server does, not what the client makes of it.
	return redis.NewClient(&redis.Options{
		Addr: s.address, TLSConfig: s.tls, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
	})
}

// Running tells whether the server has been started and has not ended. A suspended one runs.
func (s *Server) Running() bool { return s.process != nil && s.process.Running() }

// Keys returns the names of all keys in the server that match pattern, such as "shadowcat:*".
func (s *Server) Keys(ctx context.Context, pattern string) ([]string, error) {
	client := s.Client()
	defer client.Close()
	keys, err := client.Keys(ctx, pattern).Result()
	if err != nil {
		return nil, fmt.Errorf("list the keys of redis-server at %s: %w", s.address, err)
	}
	return keys, nil
}

// Stop ends the server in an orderly way. What it holds is lost unless Options.Persistent. A stopped server is left alone.
func (s *Server) Stop() error {
	if s.process == nil || !s.process.Running() {
		return nil
	}
	return s.process.Stop(stopGrace)
}

// Kill ends the server at once.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.Kill()
	}
}

// Suspend makes the server hang: its connections stay open and nothing answers, until Resume.
func (s *Server) Suspend() error { return s.process.Suspend() }

// Resume lets a suspended server go on, with all it held.
func (s *Server) Resume() error { return s.process.Resume() }

// Close ends the server and removes its folder.
func (s *Server) Close() error {
	s.Kill()
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove the folder of redis-server: %w", err)
	}
	return nil
}
