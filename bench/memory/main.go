// Command memory measures what a session costs Redis: it fills a redis-server of its own with sessions such as the
// proxy makes, and divides what the server's memory has grown by.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// The goals, in bytes a session.
const (
	goalRecord = 700  // record, indexes and TTL
	goalAll    = 1331 // everything a default session keeps: 1.3 KiB
)

// callers create sessions at once; more do not make a server of one thread any faster.
const callers = 64

// initialize is a usual message: what the official Inspector sends, and a few capabilities more.
const initialize = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":` +
	`{"sampling":{},"elicitation":{},"roots":{"listChanged":true}},"clientInfo":{"name":"mcp-inspector","version":"0.17.2"}}}`

func main() {
	sessions := flag.Int("sessions", 1_000_000, "how many sessions to make")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *sessions); err != nil {
		fmt.Fprintln(os.Stderr, "memory:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func run(ctx context.Context, out io.Writer, sessions int) error {
	fmt.Fprintf(out, "%d sessions, %d callers, redis-server without persistence\n\n", sessions, callers)
	fmt.Fprintf(out, "%-46s  %10s  %10s  %8s\n", "WHAT A SESSION KEEPS", "BYTES EACH", "GOAL", "SECONDS")
	missed := false
	for _, kind := range []struct {
		name       string
		goal       float64
		initialize string
	}{
		{"record, indexes and TTL", goalRecord, ""},
		{"everything, the initialize message included", goalAll, initialize},
	} {
		each, took, err := measure(ctx, sessions, kind.initialize)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%-46s  %10.0f  %10s  %8.1f\n", kind.name, each, fmt.Sprintf("<= %.0f", kind.goal), took.Seconds())
		missed = missed || each > kind.goal
	}
	if missed {
		return fmt.Errorf("a goal was missed")
	}
	return nil
}

// measure fills a new server and returns the bytes it needs for each session.
func measure(ctx context.Context, sessions int, message string) (each float64, took time.Duration, err error) {
	server, err := redisserver.Start(ctx, redisserver.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = cmp.Or(err, server.Close()) }()
	cfg := cluster.DefaultConfig()
	cfg.MaxSessions, cfg.CreateRate, cfg.StoreTimeout = 0, 0, 10*time.Second
	store, err := redisstore.Open(server.URL()+"?pool_size="+strconv.Itoa(callers), redisstore.Options{Config: cfg})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = cmp.Or(err, store.Close()) }()

	if err := fill(ctx, store, 1, message); err != nil { // what the first session costs is the store's, not its own
		return 0, 0, err
	}
	before, err := usedMemory(ctx, server)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := fill(ctx, store, sessions, message); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	after, err := usedMemory(ctx, server)
	return float64(after-before) / float64(sessions), took, err
}

// fill makes active sessions, each of which has served one request.
func fill(ctx context.Context, store *redisstore.Store, sessions int, message string) error {
	group, ctx := errgroup.WithContext(ctx)
	for caller := range min(callers, sessions) {
		group.Go(func() error {
			for i := caller; i < sessions; i += callers {
				if err := fillOne(ctx, store, message); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func fillOne(ctx context.Context, store *redisstore.Store, message string) error {
	created, err := store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{
		Upstream: "files", Endpoint: "10.20.30.40:8080", ClientName: "mcp-inspector", ClientVersion: "0.17.2", Initialize: []byte(message),
	}})
	if err != nil {
		return err
	}
	made, err := store.Update(ctx, cluster.Change{ID: created.Session.ID, ExpectedVersion: created.Session.Version, Writer: "ABCDEFGHIJKLM", Activation: cluster.Activation{
		UpstreamSession: "0123456789ABCDEFGHIJKLMNOP", Revision: "2025-11-25",
	}})
	if err != nil {
		return err
	}
	_, err = store.Lease(ctx, cluster.LeaseCall{ID: made.ID, Digest: created.Token.Digest(), Upstream: "files", Want: 1})
	return err
}

// usedMemory asks a server for used_memory, in bytes.
func usedMemory(ctx context.Context, server *redisserver.Server) (int64, error) {
	client := server.Client()
	defer func() { _ = client.Close() }()
	info, err := client.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(info) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); found {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("the server does not tell used_memory")
}
