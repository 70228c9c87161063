package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// patience is the least time a command waits for one answer of the store. A replica gives up much sooner, because a
// client waits for it; a person at a terminal prefers a late answer to none.
const patience = 3 * time.Second

// withSessions is withStore for commands that need no more than the sessions.
func withSessions(ctx context.Context, s settings.Settings, command func(*cluster.Manager) error) error {
	return withStore(ctx, s, func(_ *redisstore.Store, manager *cluster.Manager) error { return command(manager) })
}

// withStore is withAudit for commands that change nothing.
func withStore(ctx context.Context, s settings.Settings, command func(*redisstore.Store, *cluster.Manager) error) error {
	return withAudit(ctx, s, nil, func(store *redisstore.Store, manager *cluster.Manager, _ cluster.Trail) error {
		return command(store, manager)
	})
}

// withAudit opens the store that s names for the length of one command. What the replicas have agreed on in the store counts, not
// what this command's own settings say. The trail writes audit records to log, which may be nil, and to the stream in the store,
// if the replicas keep one, or, where none has said so, audit_stream is set.
func withAudit(
	ctx context.Context, s settings.Settings, log *slog.Logger, command func(*redisstore.Store, *cluster.Manager, cluster.Trail) error,
) (err error) {
	if s.Redis == redisstore.EmbeddedURL {
		return usage(errors.New("redis: embedded: is private to the process that runs it; name the store that the replicas use"))
	}
	s.Cluster.StoreTimeout = max(s.Cluster.StoreTimeout, patience)
	store, err := redisstore.Open(s.Redis, redisstore.Options{
		Prefix: s.Prefix, Partitions: s.Partitions, Config: s.Cluster, TLS: s.RedisTLS, Passwords: s.RedisPasswords,
		WaitReplicas: s.WaitReplicas, AuditStream: s.AuditStream, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return usage(err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := withAdopted(ctx, s, store, log, command); errors.Is(err, cluster.ErrStoreUnavailable) {
		return fmt.Errorf("%s: %w", redisstore.RedactURL(s.Redis), err)
	} else if err != nil {
		return err
	}
	return nil
}

// withAdopted is withAudit with a store that is open.
func withAdopted(
	ctx context.Context, s settings.Settings, store *redisstore.Store, log *slog.Logger,
	command func(*redisstore.Store, *cluster.Manager, cluster.Trail) error,
) (err error) {
	if err := store.Adopt(ctx); err != nil {
		return err
	}
	trail := operatorTrail(log)
	if store.AuditRecords() > 0 {
		stream := store.NewAuditStream(nil)
		trail.Auditor = stream
		writing, stop := context.WithCancel(context.WithoutCancel(ctx))
		written := make(chan error, 1)
		go func() { written <- stream.Run(writing) }() // ends with the command, which waits for the last records
		defer func() {
			stop()
			err = errors.Join(err, <-written)
		}()
	}
	store.OnPurge(func(ids []cluster.ID) { trail.Purged(cluster.ActorOperator, whyOnTheWay, ids...) })
	manager, err := cluster.NewManager(store, s.Cluster, cluster.Options{Actor: trail.Actor, By: trail.By, Auditor: trail.Auditor, Logger: log})
	if err != nil {
		return usage(err)
	}
	return command(store, manager, trail)
}
