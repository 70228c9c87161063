package integration_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/lossyproxy"
	"github.com/tapwire/shadowcat-cluster/integration/rediscluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// detour is a way to servers through a proxy for each.
type detour struct {
	server
	proxies map[string]*lossyproxy.Proxy // by the server's address
}

func newDetour(t *testing.T, to server) detour {
	t.Helper()
	d := detour{to, make(map[string]*lossyproxy.Proxy)}
	for _, s := range to.Servers() {
		proxy, err := lossyproxy.Start(s.Address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(closer(t, proxy.Close))
		d.proxies[s.Address()] = proxy
	}
	return d
}

// dial is the Dialer of a client that takes the detour.
func (d detour) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, d.proxies[address].Address())
}

// open opens a store that takes the detour. Its client would retry whatever it may.
func (d detour) open(t *testing.T, options redisstore.Options) *redisstore.Store {
	t.Helper()
	password, _ := storeUser.Password()
	common := redis.UniversalOptions{
		Addrs: slices.Collect(maps.Keys(d.proxies)), Dialer: d.dial, Username: storeUser.Username(), Password: password, DB: database,
		ContextTimeoutEnabled: true, DisableIdentity: true, MinRetryBackoff: time.Millisecond,
		// Its goroutines outlive the client.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	var client redis.UniversalClient = redis.NewClient(common.Simple())
	if _, isCluster := d.server.(*rediscluster.Topology); isCluster {
		client = redis.NewClusterClient(common.Cluster())
	}
	t.Cleanup(closer(t, client.Close))
	store, err := redisstore.New(client, options)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// lose makes every server lose one reply to a script while call runs, after so many others. It tells whether any did.
func (d detour) lose(skip int, call func()) (lost bool) {
	for _, proxy := range d.proxies {
		proxy.LoseReply("eval", skip)
	}
	call()
	for _, proxy := range d.proxies {
		lost = !proxy.Spare() || lost
	}
	return lost
}

// maxScripts is more than any call runs on one server, one after the other.
const maxScripts = 10

// lossyCall makes one call of a store while lose loses a reply, checks what came of it and reports whether lose did.
type lossyCall func(t *testing.T, store *redisstore.Store, lose func(call func()) bool) bool

var lossyCalls = map[string]lossyCall{
	"create":    createLossily,
	"update":    updateLossily,
	"terminate": terminateLossily,
	"lease":     leaseLossily,
	"report":    reportLossily,
	"get":       getLossily,
	"check":     checkLossily,
	"list":      listLossily,
	"stats":     statsLossily,
	"prune":     pruneLossily,
	"events":    eventsLossily,
	"frames":    framesLossily,
	"streams":   streamsLossily,
	"release":   releaseLossily,
	"states":    statesLossily,
	"recovery":  recoveryLossily,
	"notes":     notesLossily,
}

// A server that did what it was asked, and whose answer got lost, has done it once.
func TestALostReplyTakesEffectOnce(t *testing.T) {
	for name, start := range map[string]func(*testing.T) server{
		"redis-server": func(t *testing.T) server { t.Helper(); return newStandalone(t) },
		"Cluster": func(t *testing.T) server {
			t.Helper()
			return newRedisCluster(t, rediscluster.Options{NodeTimeout: unhurried})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := newDetour(t, start(t))
			for call, do := range lossyCalls {
				t.Run(call, func(t *testing.T) {
					options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
					options.Config.StoreTimeout = patientTimeout
					options.Config.CreateRate, options.Config.CreateRatePerPrincipal = 100_000, 100_000
					options.Config.MaxSessionsPerPrincipal = 2
					store := at.open(t, options)
					useAll(t, store)
					skip := 0
					for do(t, store, func(call func()) bool { return at.lose(skip, call) }) {
						if skip++; skip == maxScripts {
							t.Fatalf("a call runs more than %d scripts", maxScripts)
						}
					}
					if skip == 0 {
						t.Error("no reply was lost")
					}
					checkViolations(t, at, options)
				})
			}
			t.Run("sweep", func(t *testing.T) { sweepLossily(t, at) })
		})
	}
}

// useAll makes the servers know the scripts, so that the first answer is not that one is unknown.
func useAll(t *testing.T, store cluster.Store) {
	t.Helper()
	for _, k := range newSettled(t, store) {
		_, errLease := store.Lease(t.Context(), k.lease())
		errReport := store.Report(t.Context(), []cluster.Report{{ID: k.ID}})[0].Err
		_, errEvents := store.AppendEvents(t.Context(), cluster.EventAppend{ID: k.ID, Stream: "s", First: 1, Events: [][]byte{{'e'}}})
		errFrames := store.AppendFrames(t.Context(), k.ID, []cluster.Frame{{Direction: cluster.FromClient}})
		errRead := store.ReadEvents(t.Context(), []cluster.EventQuery{{ID: k.ID, Stream: "s", Limit: 1}})[0].Err
		_, errReadFrames := store.ReadFrames(t.Context(), cluster.FrameQuery{ID: k.ID, Limit: 1})
		_, errPrune := store.Prune(t.Context(), k.ID, []string{"dead"})
		state, errStream := store.ClaimStream(t.Context(), cluster.StreamClaim{ID: k.ID, Owner: "a/1", Read: true})
		errRelease := store.ReleaseStream(t.Context(), k.ID, state.Claim)
		errState := store.StreamStates(t.Context(), []cluster.ID{k.ID})[0].Err
		errNote := store.Note(t.Context(), cluster.Note{ID: k.ID, Key: "k", Message: []byte{'n'}})
		_, errRecovery := store.ClaimRecovery(t.Context(), cluster.RecoveryClaim{ID: k.ID, ExpectedVersion: k.Version, Writer: "w", For: time.Second})
		errCheck := store.Check(t.Context(), []cluster.ID{k.ID})[0]
		_, errGet := store.Get(t.Context(), k.ID)
		_, errTerminate := store.Terminate(t.Context(), k.ID, cluster.StatusClosed)
		if err := errors.Join(errLease, errReport, errEvents, errFrames, errRead, errReadFrames, errPrune, errCheck, errTerminate, errGet,
			errStream, errRelease, errState, errNote, errRecovery); err != nil {
			t.Fatal(err)
		}
	}
	_, errList := store.List(t.Context(), cluster.Query{Limit: 1})
	_, errStats := store.Stats(t.Context())
	_, errSweep := store.Sweep(t.Context(), cluster.SweepCall{Limit: 100})
	if err := errors.Join(errList, errStats, errSweep); err != nil {
		t.Fatal(err)
	}
}

func mustActive(t *testing.T, store cluster.Store) knownSession {
	t.Helper()
	k, err := newActive(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustStats(t *testing.T, store cluster.Store) cluster.Stats {
	t.Helper()
	stats, err := store.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// requestsOf is how many requests of a session are counted.
func requestsOf(t *testing.T, store cluster.Store, id cluster.ID) int64 {
	t.Helper()
	session, err := store.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return session.Requests
}

func createLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	before := mustStats(t, store)
	token, err := cluster.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	creation := cluster.Creation{Token: token, NewSession: cluster.NewSession{
		Upstream: "u", ClientName: "c", Principal: cluster.Principal(strings.ReplaceAll(token.ID.String(), "-", "_")),
	}}
	var created cluster.Created
	lost := lose(func() { created, err = store.Create(t.Context(), creation) })
	if err != nil || created.Session.ID != token.ID || len(created.Ended) > 0 {
		t.Errorf("create: session %s, %d ended, %v; want %s, none", created.Session.ID, len(created.Ended), err, token.ID)
	}
	session, err := store.Get(t.Context(), token.ID)
	if err != nil || session.Status != cluster.StatusInitializing || session.Upstream != "u" || session.ClientName != "c" {
		t.Errorf("created %+v, %v; want an initializing session of u and c", session, err)
	}
	if after := mustStats(t, store); after.Created != before.Created+1 {
		t.Errorf("%d sessions were created, want 1", after.Created-before.Created)
	}
	// It takes one of the principal's places.
	creation.Token = cluster.Token{}
	for i, want := range []error{nil, cluster.ErrPrincipalCapacity} {
		if _, err := store.Create(t.Context(), creation); !errors.Is(err, want) {
			t.Errorf("the principal's session %d: %v, want %v", i+2, err, want)
		}
	}
	return lost
}

func updateLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	change := cluster.Change{
		ID: k.ID, ExpectedVersion: k.Version, Writer: "w", Activation: cluster.Activation{UpstreamSession: "another"},
	}
	var session cluster.Session
	var err error
	lost := lose(func() { session, err = store.Update(t.Context(), change) })
	if err != nil || session.Recoveries() != 1 || session.UpstreamSession != "another" {
		t.Errorf("update: %d recoveries, the last to %q, %v; want one to another", session.Recoveries(), session.UpstreamSession, err)
	}
	return lost
}

func terminateLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	before := mustStats(t, store)
	var session cluster.Session
	var err error
	lost := lose(func() { session, err = store.Terminate(t.Context(), k.ID, cluster.StatusTerminated) })
	if err != nil || session.Status != cluster.StatusTerminated {
		t.Errorf("terminate: %s, %v; want terminated", session.Status, err)
	}
	after := mustStats(t, store)
	if n := after.Ended[cluster.StatusTerminated] - before.Ended[cluster.StatusTerminated]; n != 1 {
		t.Errorf("%d sessions were terminated, want 1", n)
	}
	return lost
}

// checkUnavailable fails the test unless a call failed as a lost reply makes it, or, if none was lost, not at all.
func checkUnavailable(t *testing.T, call string, err error, lost bool) {
	t.Helper()
	if lost != (err != nil) || lost && !errors.Is(err, cluster.ErrStoreUnavailable) {
		t.Errorf("%s: %v; reply lost: %v, want ErrStoreUnavailable then and only then", call, err, lost)
	}
}

func leaseLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	before := requestsOf(t, store, k.ID)
	var err error
	lost := lose(func() { _, err = store.Lease(t.Context(), k.lease()) })
	checkUnavailable(t, "lease", err, lost)
	if n := requestsOf(t, store, k.ID) - before; n != 1 {
		t.Errorf("%d requests were counted, want 1", n)
	}
	return lost
}

// Counters are not told again, activity is.
func reportLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	sessions := make([]knownSession, 60) // several scripts in a pipeline, even on one server
	reports := make([]cluster.Report, len(sessions))
	before := make([]int64, len(sessions))
	for i := range sessions {
		sessions[i] = mustActive(t, store)
		reports[i] = cluster.Report{ID: sessions[i].ID, Requests: 3}
		before[i] = requestsOf(t, store, sessions[i].ID)
	}
	var renewals []cluster.Renewal
	lost := lose(func() { renewals = store.Report(t.Context(), reports) })
	var failed bool
	for i, r := range renewals {
		failed = failed || r.Err != nil
		if r.Err != nil && !errors.Is(r.Err, cluster.ErrStoreUnavailable) {
			t.Errorf("report %d: %v, want ErrStoreUnavailable or none", i, r.Err)
		}
		reports[i].Requests = 0
	}
	if failed != lost {
		t.Errorf("some reports failed: %v, want %v", failed, lost)
	}
	for i, r := range store.Report(t.Context(), reports) {
		if r.Err != nil {
			t.Errorf("report %d, told again: %v", i, r.Err)
		}
		if n := requestsOf(t, store, sessions[i].ID) - before[i]; n != 3 {
			t.Errorf("report %d: %d requests were counted, want 3", i, n)
		}
	}
	return lost
}

func getLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	var session cluster.Session
	var err error
	lost := lose(func() { session, err = store.Get(t.Context(), k.ID) })
	if err != nil || session.Status != cluster.StatusActive {
		t.Errorf("get: %s, %v; want active", session.Status, err)
	}
	return lost
}

func checkLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	var err error
	lost := lose(func() { err = store.Check(t.Context(), []cluster.ID{k.ID})[0] })
	checkUnavailable(t, "check", err, lost)
	return lost
}

func listLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	mustActive(t, store)
	list := func() (int, error) {
		page, err := store.List(t.Context(), cluster.Query{Limit: 100})
		return len(page.Sessions), err
	}
	want, err := list()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	lost := lose(func() { got, err = list() })
	checkUnavailable(t, "list", err, lost)
	if err == nil && got != want {
		t.Errorf("%d sessions are listed, want %d", got, want)
	}
	return lost
}

func statsLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	mustActive(t, store)
	want := mustStats(t, store)
	var got cluster.Stats
	var err error
	lost := lose(func() { got, err = store.Stats(t.Context()) })
	checkUnavailable(t, "stats", err, lost)
	if err == nil && got.Created != want.Created {
		t.Errorf("%d sessions are counted, want %d", got.Created, want.Created)
	}
	return lost
}

func pruneLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	started := []cluster.PendingRequest{{Key: "1", Owner: "dead", Age: time.Second}, {Key: "2", Owner: "alive", Age: time.Second}}
	if r := store.Report(t.Context(), []cluster.Report{{ID: k.ID, Started: started}})[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	var err error
	lost := lose(func() { _, err = store.Prune(t.Context(), k.ID, []string{"dead"}) })
	if err != nil {
		t.Errorf("prune: %v", err)
	}
	if r := store.Report(t.Context(), []cluster.Report{{ID: k.ID}})[0]; r.Err != nil || r.Pending != 1 {
		t.Errorf("%d requests are in flight, %v; want 1", r.Pending, r.Err)
	}
	return lost
}

func eventsLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	var err error
	lost := lose(func() {
		_, err = store.AppendEvents(t.Context(), cluster.EventAppend{ID: k.ID, Stream: "s", First: 1, Events: [][]byte{{'a'}, {'b'}}})
	})
	if err != nil {
		t.Errorf("append: %v", err)
	}
	page := store.ReadEvents(t.Context(), []cluster.EventQuery{{ID: k.ID, Stream: "s", Limit: 10}})[0]
	if got := string(bytes.Join(page.Events, nil)); page.Err != nil || got != "ab" || page.Last != 2 {
		t.Errorf("the stream holds %q up to %d, %v; want ab up to 2", got, page.Last, page.Err)
	}
	return lost
}

// Frames are numbered by the store, so that it cannot know that they are sent again: they are not.
func framesLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	var err error
	lost := lose(func() {
		err = store.AppendFrames(t.Context(), k.ID, []cluster.Frame{{Direction: cluster.FromClient, Method: "m"}})
	})
	checkUnavailable(t, "append", err, lost)
	page, err := store.ReadFrames(t.Context(), cluster.FrameQuery{ID: k.ID, Limit: 10})
	if err != nil || len(page.Frames) != 1 || page.Last != 1 {
		t.Errorf("%d frames are recorded up to %d, %v; want 1", len(page.Frames), page.Last, err)
	}
	return lost
}

// makeDue makes so many sessions and waits until they are past their end.
func makeDue(t *testing.T, at server, options redisstore.Options, store cluster.Store, sessions int) {
	t.Helper()
	hasty := options // whoever leases a session decides when it ends
	hasty.Config.Lease, hasty.Config.IdleTimeout = 0, time.Millisecond
	hasty.Config.ReportInterval, hasty.Config.ReportSlack = 10*time.Millisecond, 10*time.Millisecond
	user := openStore(t, at.URL(storeUser), hasty)
	young := make([]knownSession, sessions)
	for i := range young {
		young[i] = mustActive(t, store) // not one that ends soon: creating ends those that are due
	}
	for _, k := range young {
		if _, err := user.Lease(t.Context(), k.lease()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, recovery, func(context.Context) error {
		if mustStats(t, store).Due < int64(sessions) {
			return errNotYet
		}
		return nil
	})
}

// A sweep whose reply is lost has swept, and the next one finds nothing to sweep.
func sweepLossily(t *testing.T, at detour) {
	const sessions = 20
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	options.Config.StoreTimeout = patientTimeout
	store := at.open(t, options)
	useAll(t, store)
	makeDue(t, at, options, store, sessions)
	var err error
	lost := at.lose(0, func() { _, err = store.Sweep(t.Context(), cluster.SweepCall{Limit: 100}) })
	checkUnavailable(t, "sweep", err, lost)
	if !lost {
		t.Error("no reply was lost")
	}
	if _, err = store.Sweep(t.Context(), cluster.SweepCall{Limit: 100}); err != nil {
		t.Errorf("sweep again: %v", err)
	}
	stats := mustStats(t, store)
	if stats.Due != 0 || stats.Ended[cluster.StatusExpired] != sessions || stats.ByStatus[cluster.StatusExpired] != sessions {
		t.Errorf("%d sessions are due, %d expired, %d records of these are kept; want 0, %d, %d",
			stats.Due, stats.Ended[cluster.StatusExpired], stats.ByStatus[cluster.StatusExpired], sessions, sessions)
	}
	checkViolations(t, at, options)
}
