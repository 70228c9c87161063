package world

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// Upstream is the upstream that all sessions in a Store belong to.
const Upstream = "files"

// Patience is what a call of the store may take while it is measured: slow is a figure, not an error.
const Patience = 10 * time.Second

// Store is a Redis of its own, without persistence, and a store of sessions in it.
type Store struct {
	Server *redisserver.Server
	Client *redis.Client
	Store  *redisstore.Store
	url    string
	also   []*redisstore.Store
}

// Limits are the defaults without the limits that a load of many sessions would meet: on their number, on how fast they are created,
// and on their requests.
func Limits() cluster.Config {
	cfg := cluster.DefaultConfig()
	cfg.MaxSessions, cfg.CreateRate, cfg.RequestRate, cfg.StoreTimeout = 0, 0, 0, Patience
	return cfg
}

// StartStore starts a Redis. So many callers may use it at once without waiting for each other's connections.
func StartStore(ctx context.Context, cfg cluster.Config, callers int) (*Store, error) {
	server, err := redisserver.Start(ctx, redisserver.Options{})
	if err != nil {
		return nil, err
	}
	s := &Store{Server: server, Client: server.Client(), url: server.URL() + "?pool_size=" + strconv.Itoa(callers)}
	if s.Store, err = redisstore.Open(s.url, redisstore.Options{Config: cfg}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Open opens another store at the same Redis, which Close closes, too.
func (s *Store) Open(opts redisstore.Options) (*redisstore.Store, error) {
	opened, err := redisstore.Open(s.url, opts)
	if err == nil {
		s.also = append(s.also, opened)
	}
	return opened, err
}

// Close ends it all.
func (s *Store) Close() error {
	var errs []error
	for _, store := range append(s.also, s.Store) {
		if store != nil {
			errs = append(errs, store.Close())
		}
	}
	return errors.Join(append(errs, s.Client.Close(), s.Server.Close())...)
}

// Create makes a session that awaits its upstream's answer.
func (s *Store) Create(ctx context.Context, message string) (cluster.Created, error) {
	return s.Store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{
		Upstream: Upstream, Endpoint: "10.20.30.40:8080", ClientName: "mcp-inspector", ClientVersion: "0.17.2", Initialize: []byte(message),
	}})
}

// NewSession makes a session that has been activated and has served one request. It returns its token, and the call that leases it.
func (s *Store) NewSession(ctx context.Context, message string) (cluster.Token, cluster.LeaseCall, error) {
	created, err := s.Create(ctx, message)
	if err != nil {
		return cluster.Token{}, cluster.LeaseCall{}, err
	}
	call := cluster.LeaseCall{ID: created.Session.ID, Digest: created.Token.Digest(), Upstream: Upstream, Need: 1, Want: 1}
	_, err = s.Store.Update(ctx, cluster.Change{
		ID: created.Session.ID, ExpectedVersion: created.Session.Version, Writer: "ABCDEFGHIJKLM",
		Activation: cluster.Activation{UpstreamSession: UpstreamSession, Revision: "2025-11-25"},
	})
	if err == nil {
		_, err = s.Store.Lease(ctx, call)
	}
	return created.Token, call, err
}

// InParallel calls do for 0 to n-1, so many at a time, and stops at the first error.
func InParallel(ctx context.Context, callers, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for caller := range min(callers, n) {
		group.Go(func() error {
			for i := caller; i < n; i += callers {
				if err := do(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
