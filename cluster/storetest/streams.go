package storetest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var streamTests = map[string]func(*testing.T, *suite){
	"the own stream has one reader":                        streamReader,
	"the own stream is claimed by one of many at once":     streamConcurrent,
	"a claim given up is anybody's":                        streamReleased,
	"listeners of the own stream are numbered":             streamListeners,
	"a listener begins where it says":                      streamBegins,
	"a claim ends where the next one begins":               streamClaimsEnd,
	"only the reader stores events of the own stream":      streamStale,
	"a new reader goes on where the old one was":           streamTakeover,
	"a new reader goes on where a client is":               streamAhead,
	"the upstream's event id is that of the last event":    streamUpstreamEvent,
	"the own stream's positions outlive its events":        streamTrimmed,
	"the own stream has no claim to other streams":         streamOthers,
	"states of many streams keep their order":              streamStates,
	"the own stream ends with its session":                 streamEnds,
	"a claim needs a name":                                 streamUnnamed,
	"a remapped session's stream has no upstream event id": streamRemapped,
	"as many streams are open as may be":                   streamsOpen,
	"of many streams opened at once as many are as may be": streamsOpenConcurrently,
	"superseded streams make room":                         streamsOpenSuperseded,
	"open streams end with their session":                  streamsOpenEnd,
}

var timedStreamTests = map[string]func(*testing.T, *suite){
	"the own stream's positions outlive their age": streamAged,
	"a due session has no own stream":              streamDue,
}

// claim asks for a part in a session's own stream and fails the test unless that is its state then. Where the latest listeners begin is
// not compared, and where claims were taken only if it is wanted.
func (s *suite) claim(c cluster.StreamClaim, want cluster.StreamState) {
	s.t.Helper()
	got, err := s.store.ClaimStream(s.t.Context(), c)
	if err != nil {
		s.t.Fatalf("ClaimStream: %v", err)
	}
	want.Version = s.get(c.ID).Version
	state := s.state(c.ID)
	if diff := cmp.Diff(got.Since, state.Since); diff != "" {
		s.t.Errorf("claim %+v tells of other claims (-) than the state (+):\n%s", c, diff)
	}
	state.Begins = nil
	if want.Since == nil {
		got.Since, state.Since = nil, nil
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("claim %+v (-want +got):\n%s", c, diff)
	}
	want.UpstreamEvent = ""
	if diff := cmp.Diff(want, state); diff != "" {
		s.t.Errorf("state after the claim %+v (-want +got):\n%s", c, diff)
	}
}

// read makes somebody the reader of a stream that nobody reads, and returns the number of the claim.
func (s *suite) read(id cluster.ID, owner string) int64 {
	s.t.Helper()
	state, err := s.store.ClaimStream(s.t.Context(), cluster.StreamClaim{ID: id, Owner: owner, Read: true})
	if err != nil || state.Reader != owner {
		s.t.Fatalf("ClaimStream: %+v, %v", state, err)
	}
	return state.Claim
}

func (s *suite) state(id cluster.ID) cluster.StreamState {
	s.t.Helper()
	states := s.store.StreamStates(s.t.Context(), []cluster.ID{id})
	if len(states) != 1 {
		s.t.Fatalf("StreamStates of one session answered with %d states", len(states))
	}
	return states[0]
}

func streamReader(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	before := s.get(made.ID)
	if diff := cmp.Diff(cluster.StreamState{Version: made.Version}, s.state(made.ID)); diff != "" {
		t.Errorf("a stream that nobody has claimed (-want +got):\n%s", diff)
	}
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1"}, cluster.StreamState{})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true}, cluster.StreamState{Reader: "a/1", Claim: 1})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true}, cluster.StreamState{Reader: "a/1", Claim: 1})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", Read: true}, cluster.StreamState{Reader: "a/1", Claim: 1})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", From: 1}, cluster.StreamState{Reader: "a/1", Claim: 1})
	for range 2 { // repeated, as after a lost reply
		s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", Read: true, From: 1}, cluster.StreamState{Reader: "b/1", Claim: 2})
	}
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", Read: true, From: 2}, cluster.StreamState{Reader: "b/1", Claim: 2})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "c/1", Read: true, From: 1}, cluster.StreamState{Reader: "b/1", Claim: 2})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true, From: 3}, cluster.StreamState{Reader: "b/1", Claim: 2})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true, From: 2}, cluster.StreamState{Reader: "a/1", Claim: 3})
	early := s.create() // an initializing session has a stream, too
	s.claim(cluster.StreamClaim{ID: early.ID, Owner: "a/1", Read: true, From: 7}, cluster.StreamState{Reader: "a/1", Claim: 1})
	if diff := cmp.Diff(before, s.get(made.ID)); diff != "" {
		t.Errorf("claims touched the session:\n%s", diff)
	}
}

func streamConcurrent(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	var (
		wg        sync.WaitGroup
		mu        sync.Mutex
		listeners []int64
		readers   = make(map[string]bool)
	)
	for i := range 16 {
		wg.Go(func() {
			state, err := s.store.ClaimStream(t.Context(), cluster.StreamClaim{ID: made.ID, Owner: fmt.Sprint("r/", i), Read: true, Listen: true})
			mu.Lock()
			defer mu.Unlock()
			if err != nil || state.Claim != 1 {
				t.Errorf("claim %d, %v; want 1", state.Claim, err)
			}
			listeners = append(listeners, state.Listener)
			readers[state.Reader] = true
		})
	}
	wg.Wait()
	slices.Sort(listeners)
	if len(readers) != 1 || len(slices.Compact(listeners)) != 16 || listeners[15] != 16 {
		t.Errorf("readers %v, listeners %v; want one, and 1 to 16", readers, listeners)
	}
}

func streamReleased(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	release := func(claim int64, want error) {
		t.Helper()
		if err := s.store.ReleaseStream(t.Context(), made.ID, claim); !errors.Is(err, want) {
			t.Errorf("release of claim %d: %v, want %v", claim, err, want)
		}
	}
	release(0, cluster.ErrStaleClaim)
	release(1, cluster.ErrStaleClaim)
	s.read(made.ID, "a/1")
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", Read: true, From: 1}, cluster.StreamState{Reader: "b/1", Claim: 2})
	release(1, cluster.ErrStaleClaim)
	release(3, cluster.ErrStaleClaim)
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1"}, cluster.StreamState{Reader: "b/1", Claim: 2})
	release(2, nil)
	release(2, nil) // repeated, as after a lost reply
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1"}, cluster.StreamState{Claim: 2})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", Read: true}, cluster.StreamState{Reader: "b/1", Claim: 3}) // anew
	release(2, cluster.ErrStaleClaim)
	release(3, nil)
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true, From: 1}, cluster.StreamState{Reader: "a/1", Claim: 4})
}

func streamListeners(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Listen: true}, cluster.StreamState{Listener: 1})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Listen: true}, cluster.StreamState{Listener: 2})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "b/1", Listen: true, Read: true}, cluster.StreamState{Listener: 3, Reader: "b/1", Claim: 1})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Listen: true, Read: true}, cluster.StreamState{Listener: 4, Reader: "b/1", Claim: 1})
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true, From: 1}, cluster.StreamState{Listener: 4, Reader: "a/1", Claim: 2})
	want := func(told int64, where string, want int64, err error) {
		t.Helper()
		if err != nil || told != want {
			t.Errorf("%s tells of listener %d, %v; want %d", where, told, err, want)
		}
	}
	for range 2 {
		told, err := s.appendOwn(made.ID, 2, 1, "", "one")
		want(told, "an append", 4, err)
	}
	for after := range int64(2) {
		page := s.readEvents(made.ID, cluster.OwnStream, after, 10)
		want(page.Listener, fmt.Sprint("a read after ", after), 4, page.Err)
	}
	appended, err := s.store.AppendEvents(t.Context(), cluster.EventAppend{ID: made.ID, Stream: "s", First: 1, Events: [][]byte{[]byte("one")}})
	if page := s.readEvents(made.ID, "s", 0, 10); err != nil || page.Err != nil || page.Last != 1 {
		t.Errorf("another stream: %+v and %+v, %v", appended, page, err)
	}
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "c/1", Listen: true}, cluster.StreamState{Listener: 5, Reader: "a/1", Claim: 2, Last: 1})
}

func streamBegins(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	claim := s.read(made.ID, "a/1")
	var want []int64
	listen := func(c cluster.StreamClaim, begins int64) {
		t.Helper()
		c.ID, c.Owner, c.Listen = made.ID, "b/1", true
		if _, err := s.store.ClaimStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		want = append([]int64{begins}, want...)
		want = want[:min(len(want), 8)]
		if diff := cmp.Diff(want, s.state(made.ID).Begins); diff != "" {
			t.Errorf("listening with %+v, listeners begin (-want +got):\n%s", c, diff)
		}
	}
	for _, step := range []struct{ after, want int64 }{{-1, 0}, {-1, 2}, {1, 1}, {-1, 6}, {9, 8}} { // the last is ahead of the store
		listen(cluster.StreamClaim{After: step.after}, step.want)
		s.mustAppendOwn(made.ID, claim, s.state(made.ID).Last+1, "one", "two")
	}
	if _, err := s.store.ClaimStream(t.Context(), cluster.StreamClaim{ID: made.ID, Owner: "b/1", After: -1}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, s.state(made.ID).Begins); diff != "" {
		t.Errorf("without a new listener, the latest begin (-want +got):\n%s", diff)
	}
	under := func(claim int64) cluster.SentEvent { return cluster.SentEvent{Claim: claim} }
	for n := range int64(9) { // each claim is ended by the next one
		s.claim(cluster.StreamClaim{ID: made.ID, Owner: fmt.Sprint("r/", n), Read: true, From: claim},
			cluster.StreamState{Reader: fmt.Sprint("r/", n), Claim: claim + 1, Listener: 5, Last: 10 + n})
		claim++
		s.mustAppendOwn(made.ID, claim, 11+n, "more")
	}
	listen(cluster.StreamClaim{After: 10, Sent: under(1)}, 10)
	listen(cluster.StreamClaim{After: 19, Sent: under(10)}, 19)
	listen(cluster.StreamClaim{After: 30, Sent: under(10)}, 19)
	listen(cluster.StreamClaim{After: 19, Sent: under(9)}, 18)
	listen(cluster.StreamClaim{After: 18, Sent: under(8)}, 17)
	listen(cluster.StreamClaim{After: 30, Sent: under(1)}, 11) // as far as is known
	taken := cluster.StreamClaim{ID: made.ID, Owner: "z/1", Read: true, From: claim, Listen: true, After: 30, Sent: under(claim)}
	if _, err := s.store.ClaimStream(t.Context(), taken); err != nil || s.state(made.ID).Begins[0] != 19 {
		t.Errorf("who takes the claim and is ahead of it begins behind %v, %v; want 19", s.state(made.ID).Begins, err)
	}
}

// streamClaimsEnd: a state tells where each of the latest claims ended.
func streamClaimsEnd(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	if state := s.state(made.ID); state.EndOfClaim(0) != math.MaxInt64 {
		t.Errorf("without a claim there is an end, at %d", state.EndOfClaim(0))
	}
	for n := range int64(10) {
		state, err := s.store.ClaimStream(t.Context(), cluster.StreamClaim{ID: made.ID, Owner: fmt.Sprint("r/", n), Read: true, From: n})
		if err != nil || state.Claim != n+1 {
			t.Fatalf("claim: %+v, %v", state, err)
		}
		s.mustAppendOwn(made.ID, state.Claim, n+1, "one")
	}
	for claim, want := range map[int64]int64{0: 2, 1: 2, 2: 2, 3: 3, 8: 8, 9: 9, 10: math.MaxInt64, 11: math.MaxInt64} {
		if got := s.state(made.ID).EndOfClaim(claim); got != want {
			t.Errorf("claim %d of 10 ends at %d, want %d", claim, got, want)
		}
	}
}

func streamStates(t *testing.T, s *suite) {
	s.open(nil)
	before := s.active()
	ids := make([]cluster.ID, 250) // more than one script takes
	want := make([]cluster.StreamState, len(ids))
	for i := range ids {
		if i%5 == 0 {
			ids[i], want[i].Err = s.token().ID, cluster.ErrNotFound
			continue
		}
		made := s.bare(s.token())
		ids[i] = made.ID
		switch i % 5 {
		case 1:
			s.terminate(made.ID)
			want[i].Err = cluster.ErrNotFound
		case 2:
			want[i] = cluster.StreamState{Reader: fmt.Sprint("r/", i), Claim: s.read(made.ID, fmt.Sprint("r/", i)), Last: 2, Since: []int64{0}}
			s.mustAppendOwn(made.ID, 1, 1, "one", "two")
		case 3:
			s.claim(cluster.StreamClaim{ID: made.ID, Owner: "l/1", Listen: true}, cluster.StreamState{Listener: 1})
			want[i].Listener, want[i].Begins = 1, []int64{0}
		}
		if want[i].Err == nil {
			want[i].Version = made.Version
		}
	}
	got := s.store.StreamStates(t.Context(), ids)
	if len(got) != len(want) {
		t.Fatalf("%d states of %d sessions", len(got), len(want))
	}
	for i := range got {
		if !errors.Is(got[i].Err, want[i].Err) {
			t.Errorf("state %d: %v, want %v", i, got[i].Err, want[i].Err)
		}
		got[i].Err = want[i].Err
		if diff := cmp.Diff(want[i], got[i], cmp.Comparer(errors.Is)); diff != "" {
			t.Errorf("state %d (-want +got):\n%s", i, diff)
		}
	}
	if got := s.store.StreamStates(t.Context(), nil); len(got) != 0 {
		t.Errorf("%d states of no sessions", len(got))
	}
	if diff := cmp.Diff(before.Session, s.get(before.ID)); diff != "" {
		t.Errorf("a session was touched:\n%s", diff)
	}
}

// wantNoStream fails the test unless a session has no own stream.
func (s *suite) wantNoStream(id cluster.ID, when string) {
	s.t.Helper()
	_, errClaim := s.store.ClaimStream(s.t.Context(), cluster.StreamClaim{ID: id, Owner: "a/1", Read: true, Listen: true})
	_, errAppend := s.appendOwn(id, 1, 1, "", "one")
	for call, err := range map[string]error{
		"claim": errClaim, "append": errAppend, "release": s.store.ReleaseStream(s.t.Context(), id, 1),
		"state": s.state(id).Err, "read": s.readEvents(id, cluster.OwnStream, 0, 1).Err,
	} {
		if !errors.Is(err, cluster.ErrNotFound) {
			s.t.Errorf("%s: %s: %v, want ErrNotFound", when, call, err)
		}
	}
}

func streamEnds(_ *testing.T, s *suite) {
	s.open(nil)
	made, early := s.active(), s.create()
	s.read(made.ID, "a/1")
	s.mustAppendOwn(made.ID, 1, 1, "one")
	s.terminate(made.ID)
	s.terminate(early.ID)
	s.wantNoStream(made.ID, "ended")
	s.wantNoStream(early.ID, "never begun")
	s.wantNoStream(s.token().ID, "unknown")
}

func streamUnnamed(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	for _, owner := range []string{"", strings.Repeat("o", 257)} {
		_, err := s.store.ClaimStream(t.Context(), cluster.StreamClaim{ID: made.ID, Owner: owner, Read: true})
		if err == nil || errors.Is(err, cluster.ErrStoreUnavailable) || errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("a claimant with a name of %d bytes: %v, want a refusal that says so", len(owner), err)
		}
	}
	if state := s.state(made.ID); state.Claim != 0 {
		t.Errorf("after refused claims: %+v", state)
	}
}

func streamDue(_ *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.read(made.ID, "a/1")
	s.b.Advance(idle())
	s.wantNoStream(made.ID, "past its end")
}
