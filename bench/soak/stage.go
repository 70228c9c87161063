package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// The limits are low, so that each is met all the time.
const (
	replicas    = 2
	maxSessions = 150
	idleTimeout = 4 * time.Second
	retention   = 2 * time.Second
	// storeTimeout is long enough for a machine that does much else.
	storeTimeout = 2 * time.Second
	// settleTimeout is longer than a session that was used a moment ago needs to expire, and its record to be purged.
	settleTimeout = time.Minute
)

// stage is what the load goes to.
type stage struct {
	redis    *redisserver.Server
	client   *redis.Client
	store    *redisstore.Store
	replicas []*replica.Replica
	closers  []func() error
}

// startStage starts it. The caller must close what it returns, with an error, too.
func startStage(ctx context.Context) (*stage, error) {
	s := &stage{}
	upstream, end, err := world.StartUpstream(ctx)
	if err != nil {
		return s, err
	}
	s.closers = append(s.closers, end)
	executable, remove, err := world.BuildServe(ctx)
	if err != nil {
		return s, err
	}
	s.closers = append(s.closers, remove)
	if s.redis, err = redisserver.Start(ctx, redisserver.Options{}); err != nil {
		return s, err
	}
	s.client = s.redis.Client()
	cfg := cluster.DefaultConfig()
	cfg.MaxSessions, cfg.IdleTimeout, cfg.Retention, cfg.StoreTimeout = maxSessions, idleTimeout, retention, world.Patience
	if s.store, err = redisstore.Open(s.redis.URL(), redisstore.Options{Config: cfg}); err != nil {
		return s, err
	}
	for i := range replicas {
		r, err := replica.New(replica.Options{
			Executable: executable, ID: fmt.Sprint("r-", i), RedisURL: s.redis.URL(), Upstreams: []string{upstream + "/mcp"},
			Args: []string{
				"--max-sessions", strconv.Itoa(maxSessions), "--idle-timeout", idleTimeout.String(), "--retention", retention.String(),
				"--evict-min-idle", "0", "--create-rate", "0", "--store-timeout", storeTimeout.String(), "--log-level", "error",
			},
			Env: []string{"GOGC=100"},
		})
		if err != nil {
			return s, err
		}
		s.replicas = append(s.replicas, r)
		if err := r.Start(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *stage) close() error {
	var errs []error
	for _, r := range s.replicas {
		if r.Running() {
			errs = append(errs, r.Stop())
		}
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.client != nil {
		errs = append(errs, s.client.Close())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Close())
	}
	for _, end := range s.closers {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// settle waits until all sessions are gone, and tells what is left then.
func (s *stage) settle(ctx context.Context) (sample, error) {
	ctx, stop := context.WithTimeoutCause(ctx, settleTimeout, fmt.Errorf("sessions are left %s after the last was used", settleTimeout))
	defer stop()
	for {
		stats, err := s.store.Stats(ctx)
		if err != nil {
			return sample{}, errors.Join(err, context.Cause(ctx))
		}
		left := int64(0)
		for _, n := range stats.ByStatus {
			left += n
		}
		if left == 0 {
			break
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return sample{}, err
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := wait(ctx, 3*time.Second); err != nil { // what the last sessions held is let go
		return sample{}, err
	}
	return s.settled(ctx)
}
