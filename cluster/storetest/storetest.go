// Package storetest is the contract of [cluster.Store] as a test suite: whatever passes it may carry a cluster.
package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Backend makes the stores to test.
type Backend struct {
	// Open returns an empty store with the given limits. It is closed by the backend when the test ends.
	Open func(t *testing.T, cfg cluster.Config) cluster.Store
	// Reopen returns another store with other limits on the data of the last one opened by the same test.
	Reopen func(t *testing.T, cfg cluster.Config) cluster.Store
	// Partitions is how many slices the store cuts its sessions into, each with a share of the cap and an order of its own.
	// With more than one, the tests that need one exact order are not part of the suite. Default 1.
	Partitions int
	// Advance moves the clock of every open store. Nil when the store's clock cannot be moved: then the tests that need
	// it are not part of the suite.
	Advance func(d time.Duration)
	// Forget calls change, and takes back what that has changed of a session's own keys, as a failover does that loses the last writes.
	// Nil when the backend cannot: then the tests that need it are not part of the suite.
	Forget func(t *testing.T, id cluster.ID, change func())
	// Verify fails the test when the store's indexes, counts and records disagree. It is called at the end of each test.
	Verify func(t *testing.T)
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	t.Helper()
	runAll(t, b, map[string]func(*testing.T, *suite){
		"create makes an initializing session":                  createMakesInitializing,
		"create refuses a taken id":                             createRefusesTakenID,
		"long strings and none survive the round trip":          longStrings,
		"update activates once":                                 updateActivates,
		"update replaces a long string by a short one, or none": updateShortens,
		"lease leaves most of the budget to others":             leaseLeavesRest,
		"lease of several requests is all or nothing":           leaseNeeds,
		"update repeated by its writer is recognized":           updateRepeated,
		"update of another version conflicts":                   updateConflicts,
		"update of an ended session is illegal":                 updateOfEnded,
		"terminate ends for good":                               terminateEnds,
		"terminate keeps the first status":                      terminateKeepsFirst,
		"without retention nothing is left":                     noRetention,
		"lease needs secret, upstream and principal":            leaseVerifies,
		"lease does not tell a record that is known":            leaseOfKnown,
		"lease grants budget up to the burst, then refuses":     leaseBudget,
		"lease without a rate grants all":                       leaseUnlimited,
		"report counts, gives back and renews":                  reportRenews,
		"report tracks pending requests":                        reportPending,
		"report and check name sessions that are gone":          reportAndCheckGone,
		"reports of many sessions keep their order":             reportMany,
		"list pages through live and ended sessions":            listPages,
		"list refuses foreign cursors":                          listRefusesCursors,
		"stats count every status":                              statsCount,
		"unknown sessions are not found":                        unknownNotFound,
	})
	runAll(t, b, map[string]func(*testing.T, *suite){
		"the cap holds over all creates":         capHolds,
		"concurrent operations are linearizable": historyIsLinearizable,
	})
	runAll(t, b, principalTests, rateTests, pendingTests, eventTests, frameTests, queryTests, cleanupTests, mendTests,
		streamTests, recoveryTests, grantTests)
	if b.Forget != nil {
		runAll(t, b, forgottenTests)
	}
	if b.Partitions <= 1 {
		runAll(t, b, orderedEndTests, orderedPrincipalTests)
		runAll(t, b, map[string]func(*testing.T, *suite){
			"create repeated answers with the stored record":             createRepeated,
			"create at the cap evicts the least recently used":           createEvicts,
			"create at the cap refuses when nothing is idle long enough": createRefuses,
			"create reaches a lowered cap two at a time":                 createReachesLoweredCap,
			"ended records are bounded by the cap":                       endedRecordsBounded,
		})
	}
	if b.Advance == nil {
		return
	}
	runAll(t, b, map[string]func(*testing.T, *suite){
		"an idle session ends after its timeout and the slack": idleEnds,
		"a busy session ends at its maximum age":               oldEnds,
		"a session never initialized ends":                     initializeTimesOut,
		"a session without limits never ends":                  neverEnds,
		"create expires what is due before it evicts":          createExpiresDue,
		"terminate of a session past its end finds it expired": terminateOfDue,
		"budget comes back with time":                          budgetComesBack,
		"held budget is worth less the older it is":            heldBudgetAges,
		"late activity moves the end, never back":              lateActivity,
		"an open stream moves the end but not the order":       streamHolds,
		"sweep expires and purges what is due":                 sweepCleans,
		"retention passes":                                     retentionPasses,
	})
	runAll(t, b, timedEndTests, timedPrincipalTests, timedRateTests, timedEventTests, timedFrameTests, timedQueryTests,
		timedCleanupTests, timedMendTests, timedStreamTests, timedRecoveryTests, timedGrantTests)
}

func runAll(t *testing.T, b Backend, groups ...map[string]func(*testing.T, *suite)) {
	t.Helper()
	for _, tests := range groups {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) { runOne(t, b, test) })
		}
	}
}

func runOne(t *testing.T, b Backend, test func(*testing.T, *suite)) {
	t.Helper()
	test(t, &suite{t: t, b: b})
	if b.Verify != nil {
		b.Verify(t)
	}
}

// suite is the state of one test.
type suite struct {
	t     *testing.T
	b     Backend
	store cluster.Store
}

// sweep is one batch of cleanup.
var sweep = cluster.SweepCall{Limit: 100}

// limits returns small limits that tests change as they need.
func limits() cluster.Config {
	cfg := cluster.DefaultConfig()
	cfg.MaxSessions = 1000 // none of many partitions is ever full by accident
	cfg.EvictMinIdle = 0
	cfg.CreateRate, cfg.CreateRatePerPrincipal = 0, 0
	cfg.RequestRate = 10
	cfg.RequestBurst = 20
	cfg.StoreTimeout = 10 * time.Second // a loaded test machine is no fault of the store
	return cfg
}

func (s *suite) open(change func(*cluster.Config)) {
	s.t.Helper()
	cfg := limits()
	if change != nil {
		change(&cfg)
	}
	s.store = s.b.Open(s.t, cfg)
}

// known is a session that a test made, with the token of its client.
type known struct {
	cluster.Session
	token cluster.Token
}

func (s *suite) create() known {
	s.t.Helper()
	token := s.token()
	created, err := s.store.Create(s.t.Context(), creation(token))
	if err != nil {
		s.t.Fatalf("Create: %v", err)
	}
	return known{Session: created.Session, token: token}
}

func (s *suite) active() known {
	s.t.Helper()
	k := s.create()
	made, err := s.store.Update(s.t.Context(), change(k.Session, "writer"))
	if err != nil {
		s.t.Fatalf("Update: %v", err)
	}
	k.Session = made
	return k
}

func (s *suite) token() cluster.Token {
	s.t.Helper()
	token, err := cluster.NewToken()
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// bare makes an active session of which nothing is known but its token.
func (s *suite) bare(token cluster.Token) cluster.Session {
	s.t.Helper()
	created, err := s.store.Create(s.t.Context(), cluster.Creation{Token: token})
	if err != nil {
		s.t.Fatalf("Create: %v", err)
	}
	made := created.Session
	made, err = s.store.Update(s.t.Context(), cluster.Change{ID: made.ID, ExpectedVersion: made.Version, Writer: "writer"})
	if err != nil {
		s.t.Fatalf("Update: %v", err)
	}
	return made
}

func (s *suite) get(id cluster.ID) cluster.Session {
	s.t.Helper()
	got, err := s.store.Get(s.t.Context(), id)
	if err != nil {
		s.t.Fatalf("Get: %v", err)
	}
	return got
}

func (s *suite) stats() cluster.Stats {
	s.t.Helper()
	stats, err := s.store.Stats(s.t.Context())
	if err != nil {
		s.t.Fatalf("Stats: %v", err)
	}
	return stats
}

func (s *suite) lease(k known, n int) (cluster.Grant, error) {
	s.t.Helper()
	return s.store.Lease(s.t.Context(), leaseCall(k, n))
}

// takeAll leases all the requests that a session's bucket holds.
func (s *suite) takeAll(k known) cluster.Grant {
	s.t.Helper()
	for n := limits().RequestBurst; n > 0; n-- {
		grant, err := s.lease(k, n)
		if err == nil {
			return grant
		}
		if !errors.Is(err, cluster.ErrRateLimited) {
			s.t.Fatalf("Lease: %v", err)
		}
	}
	return cluster.Grant{}
}

func (s *suite) mustLease(k known, n int) cluster.Grant {
	s.t.Helper()
	grant, err := s.lease(k, n)
	if err != nil {
		s.t.Fatalf("Lease: %v", err)
	}
	return grant
}

func (s *suite) report(r cluster.Report) cluster.Renewal {
	s.t.Helper()
	renewals := s.store.Report(s.t.Context(), []cluster.Report{r})
	if len(renewals) != 1 {
		s.t.Fatalf("Report of one session answered with %d renewals", len(renewals))
	}
	return renewals[0]
}

func creation(token cluster.Token) cluster.Creation {
	return cluster.Creation{
		Token: token,
		NewSession: cluster.NewSession{
			Upstream: "weather", Endpoint: "http://127.0.0.1:9000/mcp", Principal: "0123456789abcdef",
			ClientName: "client", ClientVersion: "1.0", Initialize: []byte(`{"method":"initialize"}`),
		},
	}
}

func change(s cluster.Session, writer string) cluster.Change {
	return cluster.Change{
		ID: s.ID, ExpectedVersion: s.Version, Writer: writer,
		Activation: cluster.Activation{UpstreamSession: "upstream-session", Revision: "2025-11-25"},
	}
}

// leaseCall asks for just n requests.
func leaseCall(k known, n int) cluster.LeaseCall {
	return cluster.LeaseCall{
		ID: k.ID, Digest: k.token.Digest(), Upstream: "weather", Principal: "0123456789abcdef", Need: n, Want: n,
	}
}
