package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// open opens a store and a manager over it, as a program would at its start. Examples use the embedded Redis.
func open(ctx context.Context) (manager *cluster.Manager, closeAll func()) {
	cfg := cluster.DefaultConfig()
	store, err := redisstore.Open(redisstore.EmbeddedURL, redisstore.Options{Config: cfg})
	check(err)
	manager, err = cluster.NewManager(store, cfg, cluster.Options{ReplicaID: "replica-1"})
	check(err)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- manager.Run(ctx) }() // renews leases, writes back activity
	return manager, func() {
		cancel()
		check(errors.Join(<-done, store.Close()))
	}
}

// A client initializes: the session is made before the upstream is asked, and usable once it has answered.
func Example_initialize() {
	ctx := context.Background()
	manager, closeAll := open(ctx)
	defer closeAll()

	session, token, err := manager.Create(ctx, cluster.NewSession{Upstream: "files", ClientName: "inspector"})
	check(err) // cluster.ErrCapacity: answer 503 with Retry-After
	// ... forward initialize; the upstream answers with a session id of its own ...
	session, err = manager.Activate(ctx, session, cluster.Activation{UpstreamSession: "upstream-1", Revision: "2025-11-25"})
	check(err)
	fmt.Println(session.Status, session.Revision, len(token.Reveal())) // the token goes into Mcp-Session-Id
	// Output: active 2025-11-25 63
}

// Any replica admits a request by its token, usually without asking the store.
func Example_request() {
	ctx := context.Background()
	manager, closeAll := open(ctx)
	defer closeAll()
	token := newClient(ctx, manager)

	received, err := cluster.ParseToken(token.Reveal()) // what the client sent
	check(err)                                          // is cluster.ErrNotFound: answer 404
	lease, err := manager.Lease(ctx, received, cluster.Use{Upstream: "files", PendingKey: "c:1"})
	switch {
	case errors.Is(err, cluster.ErrNotFound):
		fmt.Println(http.StatusNotFound)
	case errors.Is(err, cluster.ErrRateLimited):
		fmt.Println(http.StatusTooManyRequests)
	case err != nil:
		fmt.Println(http.StatusServiceUnavailable) // never 404: the client would throw its session away
	default:
		defer lease.Release()
		fmt.Println("forward to", lease.Session().UpstreamSession)
	}
	// Output: forward to upstream-1
}

// A stream is held until the client leaves or the session ends, here or at another replica.
func Example_stream() {
	ctx := context.Background()
	manager, closeAll := open(ctx)
	defer closeAll()
	token := newClient(ctx, manager)

	lease, err := manager.Lease(ctx, token, cluster.Use{Upstream: "files", Stream: true})
	check(err)
	defer lease.Release()
	lease.Touch() // for each message that passes

	_, err = manager.Terminate(ctx, token.ID, cluster.StatusClosed) // the client's DELETE
	check(err)
	<-lease.Ended()
	fmt.Println("close the stream")
	// Output: close the stream
}

// A stream that broke off goes on at any replica: what the client missed is in the store.
func Example_resume() {
	ctx := context.Background()
	store, err := redisstore.Open(redisstore.EmbeddedURL, redisstore.Options{Config: cluster.DefaultConfig()})
	check(err)
	defer func() { check(store.Close()) }()
	created, err := store.Create(ctx, cluster.Creation{NewSession: cluster.NewSession{Upstream: "files"}})
	check(err)

	messages := [][]byte{[]byte("one"), []byte("two"), []byte("three")}
	_, err = store.AppendEvents(ctx, cluster.EventAppend{ID: created.Session.ID, Stream: "get", First: 1, Events: messages})
	check(err)

	// The client comes back with the event id of the first one.
	page := store.ReadEvents(ctx, []cluster.EventQuery{{ID: created.Session.ID, Stream: "get", After: 1, Limit: 100}})[0]
	check(page.Err) // cluster.ErrEventsGone: some that follow are not kept, so the stream cannot go on
	for _, message := range page.Events {
		fmt.Println(string(message))
	}
	// Output:
	// two
	// three
}

// An operator pages through the sessions of the whole cluster.
func Example_list() {
	ctx := context.Background()
	manager, closeAll := open(ctx)
	defer closeAll()
	for range 3 {
		newClient(ctx, manager)
	}

	query := cluster.Query{Limit: 2}
	for {
		page, err := manager.List(ctx, query)
		check(err)
		for _, session := range page.Sessions {
			fmt.Println(session.Upstream, session.Status)
		}
		if query.Cursor = page.Next; query.Cursor == "" {
			break
		}
	}
	// Output:
	// files active
	// files active
	// files active
}

// A fault of the store is never "not found".
func ExampleOpen() {
	cfg := cluster.DefaultConfig()
	store, err := redisstore.Open("redis://127.0.0.1:1", redisstore.Options{Config: cfg}) // nobody listens there
	check(err)
	defer func() { _ = store.Close() }()

	err = store.Ping(context.Background())
	fmt.Println(errors.Is(err, cluster.ErrStoreUnavailable), errors.Is(err, cluster.ErrNotFound))
	// Output: true false
}

// check stands for what a program does about an error.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// newClient makes an active session.
func newClient(ctx context.Context, manager *cluster.Manager) cluster.Token {
	session, token, err := manager.Create(ctx, cluster.NewSession{Upstream: "files"})
	check(err)
	_, err = manager.Activate(ctx, session, cluster.Activation{UpstreamSession: "upstream-1"})
	check(err)
	return token
}
