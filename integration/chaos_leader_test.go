package integration_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
	"github.com/tapwire/shadowcat-cluster/lua"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// dueSessions come past their end in most tests of chaos.
const dueSessions = 200

// successionBound is within what a dead leader has a successor that has swept.
const successionBound = chaosTTL + chaosSlack + 2*time.Second

// others returns the replicas but one.
func others(replicas []*cleaner, one *cleaner) []*cleaner {
	return slices.DeleteFunc(slices.Clone(replicas), func(c *cleaner) bool { return c == one })
}

func TestChaosALeaderThatIsKilledIsSucceeded(t *testing.T) {
	t.Parallel()
	w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), nil)
	due := w.mortals(t, dueSessions)
	replicas := w.replicas(t, 3)
	leader := w.awaitSweeper(t, replicas...)
	leader.Kill()
	killed := time.Now()
	w.doom(t, due)
	w.awaitExpired(t, dueSessions)
	within(t, "from the kill until what was due is gone", time.Since(killed), successionBound)
	w.awaitLeader(t, chaosTTL, others(replicas, leader)...)
	w.finish(t)
}

func TestChaosALeaderThatStopsHandsOver(t *testing.T) {
	t.Parallel()
	w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), nil)
	due := w.mortals(t, dueSessions)
	replicas := w.replicas(t, 3, "--leader-ttl", "10s") // so long nobody would lead if the lock were not given back
	leader := w.awaitSweeper(t, replicas...)
	w.doom(t, due)
	w.awaitExpired(t, dueSessions)
	stopped := make(chan error, 1)
	begun := time.Now()
	go func() { stopped <- leader.Stop() }() // ends with the replica, within its 30 s
	w.awaitLeader(t, recovery, others(replicas, leader)...)
	within(t, "from SIGTERM until another leads", time.Since(begun), time.Second)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	t.Logf("the old leader was gone after %s", time.Since(begun).Round(time.Millisecond))
	w.finish(t)
}

// A process that was stopped goes on where it was. Here what it had just sent arrives last of all.
func TestChaosALateScriptOfAStoppedLeaderIsRefused(t *testing.T) {
	t.Parallel()
	w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), nil)
	due := w.mortals(t, dueSessions)
	leader := w.behindProxy(t)
	w.awaitSweeper(t, leader)
	successors := w.replicas(t, 2)
	held, release := leader.proxy.Hold(digestOf(lua.SessionsSweep))
	select {
	case <-held:
	case <-time.After(recovery):
		t.Fatal("the leader does not sweep")
	}
	if err := leader.Suspend(); err != nil {
		t.Fatal(err)
	}
	suspended := time.Now()
	w.doom(t, due)
	w.awaitExpired(t, dueSessions)
	within(t, "from SIGSTOP until what was due is gone", time.Since(suspended), successionBound)
	pause(t.Context(), 3*chaosTTL-time.Since(suspended))
	release()
	if err := leader.Resume(); err != nil {
		t.Fatal(err)
	}
	at := w.at.Servers()[0].Address()
	took := eventually(t, recovery, func(context.Context) error {
		if w.witness.refused(at) == 0 {
			return errors.New("no script was refused")
		}
		return nil
	})
	t.Logf("the late script was refused %s after it was let go", took.Round(time.Millisecond))
	took = eventually(t, recovery, func(ctx context.Context) error {
		if leads, err := leader.metric(ctx, "shadowcat_leader"); err != nil || leads != 0 {
			return errors.Join(errors.New("the old leader believes in itself"), err)
		}
		return nil
	})
	within(t, "from SIGCONT until the old leader knows", took, time.Second)
	w.awaitLeader(t, time.Second, successors...)
	pause(t.Context(), 2*chaosInterval) // whatever else the old leader had in mind
	w.finish(t)
}

func TestChaosALeaderThatIsCutOffStopsBeforeAnotherLeads(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*testing.T, *cleaner){
		"Broken": func(t *testing.T, c *cleaner) {
			if err := c.proxy.Close(); err != nil {
				t.Error(err)
			}
		},
		"Silent": func(_ *testing.T, c *cleaner) { c.proxy.Freeze() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), nil)
			due := w.mortals(t, dueSessions)
			leader := w.behindProxy(t)
			w.awaitSweeper(t, leader)
			successors := w.replicas(t, 2)
			samples := sampleLeaders(t, append(successors, leader))
			cut(t, leader)
			begun := time.Now()
			w.doom(t, due)
			w.awaitExpired(t, dueSessions)
			within(t, "from the cut until what was due is gone", time.Since(begun), successionBound)
			first, _ := w.awaitLeader(t, recovery, successors...)
			seen := samples()
			seen.checkNoOverlap(t)
			old, young := seen[leader], seen[first]
			if len(old) == 0 || len(young) == 0 {
				t.Fatal("the change was not seen")
			}
			t.Logf("the old leader was last seen leading %s after the cut, the new one first %s after it",
				old[len(old)-1].from.Sub(begun).Round(time.Millisecond), young[0].to.Sub(begun).Round(time.Millisecond))
			w.finish(t)
		})
	}
}

// sighting is an answer that said "I lead": given at some moment from when it was asked for until it came.
type sighting struct{ from, to time.Time }

type sightings map[*cleaner][]sighting

// sampleLeaders asks replicas whether they lead, all the time, until the function it returns is called.
func sampleLeaders(t *testing.T, replicas []*cleaner) func() sightings {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	var workers sync.WaitGroup
	seen := make(sightings)
	for _, c := range replicas {
		workers.Go(func() {
			for ctx.Err() == nil {
				from := time.Now()
				leads, err := c.metric(ctx, "shadowcat_leader")
				if err == nil && leads == 1 {
					mu.Lock()
					seen[c] = append(seen[c], sighting{from, time.Now()})
					mu.Unlock()
				}
				pause(ctx, 20*time.Millisecond)
			}
		})
	}
	end := func() sightings {
		stop()
		workers.Wait()
		return seen
	}
	t.Cleanup(func() { end() })
	return end
}

// checkNoOverlap fails the test when a replica said that it leads after another had begun to say so, and went on to.
func (s sightings) checkNoOverlap(t *testing.T) {
	t.Helper()
	for a, ofA := range s {
		for b, ofB := range s {
			if a == b || len(ofA) == 0 || len(ofB) == 0 || ofA[0].from.After(ofB[0].from) {
				continue
			}
			if last := ofA[len(ofA)-1]; last.from.After(ofB[0].to) {
				t.Errorf("%s said that it leads up to %s after %s had begun to", a.Address(), last.from.Sub(ofB[0].to), b.Address())
			}
		}
	}
}

// Each election has a client of its own, as if it were in a process of its own.
func TestChaosOfTwentyReplicasStartedAtOnceOneLeads(t *testing.T) {
	t.Parallel()
	const candidates = 20
	at := newChaosServer(t, redisserver.Options{})
	options := redisstore.Options{Prefix: freshPrefix(), Config: roomyConfig()}
	options.Config.StoreTimeout = patientTimeout
	elections := make([]*sweeper.Election, candidates)
	for i := range elections {
		var err error
		elections[i], err = sweeper.NewElection(sweeper.ElectionConfig{
			Store: openStore(t, at.URL(storeUser), options), Incarnation: fmt.Sprintf("replica-%d", i), TTL: chaosTTL,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	terms := make(chan int64, 100)
	start := make(chan struct{})
	for _, e := range elections {
		running.Go(func() {
			<-start
			_ = e.Run(ctx, func(ctx context.Context, term *sweeper.Term) error { // it fails only when it runs twice
				terms <- term.Epoch()
				<-ctx.Done()
				return nil
			})
		})
	}
	begun := time.Now()
	close(start)
	<-terms
	within(t, "the first leader", time.Since(begun), chaosTTL)
	for range 100 {
		leaders := 0
		for _, e := range elections {
			if e.Status().IsLeader {
				leaders++
			}
		}
		if leaders > 1 {
			t.Errorf("%d replicas lead", leaders)
		}
		pause(ctx, chaosTTL/50)
	}
	stop()
	running.Wait()
	close(terms)
	// Those who were told to stop a moment later may have led for that moment.
	t.Logf("%d candidates, %d further terms while all of them stopped, all by epochs of their own", candidates, len(terms))
}
