package redisserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// fullSyncAtOnce makes a new replica's first synchronization begin at once: by default a server waits 5 s for further ones.
var fullSyncAtOnce = []string{"--repl-diskless-sync-delay", "0"}

// replicationTimeout bounds the wait of WaitReplicated.
const replicationTimeout = 5 * time.Second

// Replicate makes the server a replica of another and returns at once.
func (s *Server) Replicate(ctx context.Context, primary *Server) error {
	host, port, _ := net.SplitHostPort(primary.address) // made by FreeAddress, so well formed
	client := s.Client()
	defer client.Close()
	if err := client.ReplicaOf(ctx, host, port).Err(); err != nil {
		return fmt.Errorf("make %s a replica of %s: %w", s.address, primary.address, err)
	}
	return nil
}

// WaitReplicated returns once n replicas have all that the server has acknowledged so far, to whomever.
func (s *Server) WaitReplicated(ctx context.Context, n int) error {
	client := s.Client()
	defer client.Close()
	// WAIT speaks of the writes of its own connection, so that one write must come before it. It is no key: in a Redis
	// Cluster a key would have to be of this server's.
	conn := client.Conn()
	defer func() { _ = conn.Close() }()
	if err := conn.Publish(ctx, "integration", "replicated").Err(); err != nil {
		return fmt.Errorf("mark the replication stream of %s: %w", s.address, err)
	}
	got, err := conn.Wait(ctx, n, replicationTimeout).Result()
	if err != nil {
		return fmt.Errorf("wait for the replicas of %s: %w", s.address, err)
	}
	if got < int64(n) {
		return fmt.Errorf("wait for the replicas of %s: %d of %d have everything after %s", s.address, got, n, replicationTimeout)
	}
	return nil
}

// errReplication is the beginning of what CheckPrimary and CheckReplica find wrong.
var errReplication = errors.New("replication")

// CheckPrimary looks whether the server is a primary with at least n replicas that keep up.
func (s *Server) CheckPrimary(ctx context.Context, n int) error {
	info, err := s.replication(ctx)
	if err != nil {
		return err
	}
	online := 0
	for field, value := range info {
		if strings.HasPrefix(field, "slave") && strings.Contains(value, "state=online") {
			online++
		}
	}
	if info["role"] != "master" || online < n {
		return fmt.Errorf("%w: %s is a %s with %d replicas online, want a master with %d", errReplication, s.address, info["role"], online, n)
	}
	return nil
}

// CheckReplica looks whether the server is a replica that keeps up with its primary.
func (s *Server) CheckReplica(ctx context.Context) error {
	info, err := s.replication(ctx)
	if err != nil {
		return err
	}
	if info["role"] != "slave" || info["master_link_status"] != "up" {
		return fmt.Errorf("%w: %s is a %s, its link is %q, want a slave whose link is up", errReplication, s.address, info["role"], info["master_link_status"])
	}
	return nil
}

// replication reads INFO replication.
func (s *Server) replication(ctx context.Context) (map[string]string, error) {
	client := s.Client()
	defer client.Close()
	return section(ctx, client, "replication")
}

func section(ctx context.Context, client *redis.Client, name string) (map[string]string, error) {
	text, err := client.Info(ctx, name).Result()
	if err != nil {
		return nil, fmt.Errorf("ask %s for INFO %s: %w", client.Options().Addr, name, err)
	}
	fields := make(map[string]string)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if field, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":"); ok {
			fields[field] = value
		}
	}
	return fields, nil
}
