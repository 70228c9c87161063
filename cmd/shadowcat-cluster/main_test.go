package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// quickExit keeps the race detector from sleeping a second at the end of each process.
const quickExit = "atexit_sleep_ms=10"

func TestMain(m *testing.M) {
	if err := os.Setenv("GORACE", quickExit); err != nil { // for the processes that tests start
		panic(err)
	}
	testscript.Main(leakChecked{m}, map[string]func(){programName: main})
}

// leakChecked fails a run whose tests passed but left goroutines behind.
type leakChecked struct{ testing *testing.M }

func (l leakChecked) Run() int {
	code := l.testing.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts runs the command lines of testdata/script. Each has an empty store of its own at $REDIS, and more
// commands:
//
//	exits CODE PROGRAM ARGS...       runs a program that must end with this status
//	session NAME STATUS              makes a session, whose ID is $NAME from then on
//	records NAME PAYLOAD             records a short conversation of it, with a secret; PAYLOAD is yes or no
//	inflight NAME KEY                reports a request of it that has been in flight for a minute
//	leads INCARNATION EPOCH          makes a replica the leader for a minute, under the epoch that follows
//	tells INCARNATION [VERSION CAP]  gives a sign of life of a replica, and has it tell of itself, of the limit max_sessions, too
//	claim PREFIX PARTITIONS AUDIT    lays out the store under a prefix, as a replica does, with so many audit records
//	audited COUNT PATTERN            the audit stream in the store holds so many records, one of which matches
//
// UPDATE=1 writes the expected output of cmp anew.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			server, err := redisstore.StartEmbedded()
			if err != nil {
				return err
			}
			env.Defer(func() { _ = server.Close() })
			env.Setenv("REDIS", server.URL())
			env.Setenv("GORACE", quickExit)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "session": makeSession, "records": records, "inflight": inFlight, "leads": leads, "tells": tells, "claim": claim, "audited": audited},
	})
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, isExit := errors.AsType[*exec.ExitError](err)
		if !isExit {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func makeSession(ts *testscript.TestScript, _ bool, args []string) {
	name, status := args[0], cluster.Status(args[1])
	// The store's own timeouts bound this: there is no context to be had here.
	ctx := context.Background()
	cfg := cluster.DefaultConfig()
	cfg.StoreTimeout = 5 * time.Second
	store, err := redisstore.Open(ts.Getenv("REDIS"), redisstore.Options{Config: cfg})
	ts.Check(err)
	defer func() { ts.Check(store.Close()) }()
	manager, err := cluster.NewManager(store, cfg, cluster.Options{})
	ts.Check(err)
	session, _, err := manager.Create(ctx, cluster.NewSession{
		Upstream: "files", Endpoint: "http://user:hunter2@files.internal:8080/mcp", ClientName: "test-client", ClientVersion: "1.0",
	})
	ts.Check(err)
	if status != cluster.StatusInitializing {
		_, err = manager.Activate(ctx, session, cluster.Activation{UpstreamSession: "upstream-secret", Revision: "2025-11-25"})
		ts.Check(err)
	}
	if status.Ended() {
		_, err = manager.Terminate(ctx, session.ID, status)
		ts.Check(err)
	}
	ts.Setenv(name, session.ID.String())
}

// openStore opens the store of a script.
func openStore(ts *testscript.TestScript) *redisstore.Store {
	cfg := cluster.DefaultConfig()
	cfg.StoreTimeout = 5 * time.Second
	store, err := redisstore.Open(ts.Getenv("REDIS"), redisstore.Options{Config: cfg})
	ts.Check(err)
	return store
}

func records(ts *testscript.TestScript, _ bool, args []string) {
	store := openStore(ts)
	defer func() { ts.Check(store.Close()) }()
	id, err := cluster.ParseID(ts.Getenv(args[0]))
	ts.Check(err)
	frames := []cluster.Frame{
		{Direction: cluster.FromClient, Method: "initialize", MessageID: "0", Size: 120, Replica: "a/1"},
		{Direction: cluster.FromUpstream, MessageID: "0", Size: 99, Status: 200, Latency: 3210 * time.Microsecond, Replica: "a/1"},
		{Direction: cluster.FromClient, Method: "notifications/initialized", Size: 54, Replica: "b/1"},
		{
			Direction: cluster.FromClient, Method: "tools/call", MessageID: `"one"`, Size: 70, Replica: "b/1",
			Payload: []byte(`{"jsonrpc":"2.0","id":"one","method":"tools/call","params":{"token":"[redacted]"}}`),
		},
		{Direction: cluster.FromUpstream, Method: "notifications/progress", Size: 80, Replica: "b/1"},
		{Direction: cluster.FromProxy, MessageID: `"one"`, Size: 140, Status: 503, Latency: 12 * time.Second, Replica: "b/1"},
	}
	if args[1] == "no" {
		for i := range frames {
			frames[i].Payload = nil
		}
	}
	ts.Check(store.AppendFrames(context.Background(), id, frames)) // the store's own timeouts bound it
}

func inFlight(ts *testscript.TestScript, _ bool, args []string) {
	store := openStore(ts)
	defer func() { ts.Check(store.Close()) }()
	id, err := cluster.ParseID(ts.Getenv(args[0]))
	ts.Check(err)
	started := []cluster.PendingRequest{{Key: args[1] + " 1.ABCDEFGH", Owner: "replica-7/ABCDEFGH", Age: time.Minute}}
	renewals := store.Report(context.Background(), []cluster.Report{{ID: id, Started: started}}) // the store's own timeouts bound it
	ts.Check(renewals[0].Err)
}

func claim(ts *testscript.TestScript, _ bool, args []string) {
	partitions, err := strconv.Atoi(args[1])
	ts.Check(err)
	auditStream, err := strconv.Atoi(args[2])
	ts.Check(err)
	store, err := redisstore.Open(ts.Getenv("REDIS"), redisstore.Options{
		Config: cluster.DefaultConfig(), Prefix: args[0], Partitions: partitions, AuditStream: auditStream,
	})
	ts.Check(err)
	defer func() { ts.Check(store.Close()) }()
	ts.Check(store.Claim(context.Background())) // the store's own timeouts bound it
}

func audited(ts *testscript.TestScript, _ bool, args []string) {
	count, err := strconv.Atoi(args[0])
	ts.Check(err)
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	store, err := redisstore.Open(ts.Getenv("REDIS"), redisstore.Options{Config: cluster.DefaultConfig()})
	ts.Check(err)
	defer func() { ts.Check(store.Close()) }()
	entries, err := store.Client().XRange(context.Background(), "shadowcat:audit", "-", "+").Result() // the store's own timeouts bound it
	ts.Check(err)
	matches := false
	var lines []string
	for _, entry := range entries {
		var fields []string
		for _, name := range slices.Sorted(maps.Keys(entry.Values)) {
			fields = append(fields, fmt.Sprintf("%s=%v", name, entry.Values[name]))
		}
		line := strings.Join(fields, " ")
		lines, matches = append(lines, line), matches || pattern.MatchString(line)
	}
	if len(entries) != count || !matches {
		ts.Fatalf("%d records, want %d, one that matches %s; they are:\n%s", len(entries), count, pattern, strings.Join(lines, "\n"))
	}
}

func tells(ts *testscript.TestScript, _ bool, args []string) {
	store := openStore(ts)
	defer func() { ts.Check(store.Close()) }()
	ctx := context.Background() // the store's own timeouts bound it
	ts.Check(store.Beat(ctx, args[0]))
	if len(args) > 1 {
		limits := cluster.SharedLimits{"max_sessions": args[2]}
		ts.Check(store.Tell(ctx, args[0], redisstore.About{Version: args[1], Limits: limits, Sessions: 7, Streams: 3}))
	}
}

func leads(ts *testscript.TestScript, _ bool, args []string) {
	epoch, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	store, err := redisstore.Open(ts.Getenv("REDIS"), redisstore.Options{Config: cluster.DefaultConfig()})
	ts.Check(err)
	defer func() { ts.Check(store.Close()) }()
	ctx := context.Background() // the store's own timeouts bound it
	ts.Check(store.Client().Set(ctx, store.LeaderKey(), args[0]+" lock-secret", time.Minute).Err())
	_, err = store.TakeEpoch(ctx, epoch)
	ts.Check(err)
}
