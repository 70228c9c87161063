package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

var recoveryTests = map[string]func(*testing.T, *suite){
	"recovery is for one writer at a time":               recoveryClaimed,
	"recovery is claimed by one of many at once":         recoveryConcurrent,
	"a change of the mapping ends a claim to recover":    recoveryEndsByUpdate,
	"only active sessions are recovered":                 recoveryRefused,
	"recovery has the client's initialize message":       recoveryInitialize,
	"notes are told by their keys' order":                notesOrdered,
	"notes are bounded":                                  notesBounded,
	"notes that are malformed are refused":               notesMalformed,
	"notes and claims end with their session":            notesEnd,
	"long strings of a session outlive it, notes do not": notesAndLongStrings,
}

var forgottenTests = map[string]func(*testing.T, *suite){
	"no version is given to two changes": versionsNotReused,
}

var timedRecoveryTests = map[string]func(*testing.T, *suite){
	"a claim to recover ends by itself": recoveryRunsOut,
	"a due session is not recovered":    recoveryDue,
}

// claimFor is how long claims of tests last: longer than any test.
const claimFor = time.Hour

func (s *suite) recover(of cluster.Session, writer string) (cluster.Recovery, error) {
	s.t.Helper()
	return s.store.ClaimRecovery(s.t.Context(), cluster.RecoveryClaim{ID: of.ID, ExpectedVersion: of.Version, Writer: writer, For: claimFor})
}

// wantRecovery fails the test unless a session may be recovered by a writer, with these notes.
func (s *suite) wantRecovery(of cluster.Session, writer string, notes ...string) cluster.Recovery {
	s.t.Helper()
	r, err := s.recover(of, writer)
	if err != nil || r.Busy != 0 {
		s.t.Fatalf("ClaimRecovery by %s: busy for %v, %v; want it granted", writer, r.Busy, err)
	}
	if diff := cmp.Diff(s.get(of.ID), r.Session); diff != "" {
		s.t.Errorf("record to recover (-stored +told):\n%s", diff)
	}
	told := make([]string, 0, len(r.Notes))
	for _, note := range r.Notes {
		told = append(told, string(note))
	}
	if diff := cmp.Diff(append([]string{}, notes...), told); diff != "" {
		s.t.Errorf("notes (-want +got):\n%s", diff)
	}
	return r
}

// wantBusy fails the test unless somebody else recovers a session, for at least and at most so long.
func (s *suite) wantBusy(of cluster.Session, writer string, least, most time.Duration) {
	s.t.Helper()
	r, err := s.recover(of, writer)
	if err != nil || r.Busy < least || r.Busy > most {
		s.t.Errorf("ClaimRecovery by %s: busy for %v, %v; want %v to %v", writer, r.Busy, err, least, most)
	}
	r.Busy = 0
	if diff := cmp.Diff(cluster.Recovery{}, r); diff != "" {
		s.t.Errorf("told with a refusal:\n%s", diff)
	}
}

func (s *suite) wantRecoveryRefused(of cluster.Session, want error) {
	s.t.Helper()
	r, err := s.recover(of, "w")
	if !errors.Is(err, want) || !cmp.Equal(cluster.Recovery{}, r) {
		s.t.Errorf("ClaimRecovery: %+v, %v; want nothing, and %v", r, err, want)
	}
}

func (s *suite) note(id cluster.ID, key, message string) error {
	s.t.Helper()
	n := cluster.Note{ID: id, Key: key}
	if message != "" {
		n.Message = []byte(message)
	}
	return s.store.Note(s.t.Context(), n)
}

func (s *suite) mustNote(id cluster.ID, key, message string) {
	s.t.Helper()
	if err := s.note(id, key, message); err != nil {
		s.t.Fatalf("Note under %q: %v", key, err)
	}
}

func recoveryClaimed(t *testing.T, s *suite) {
	s.open(nil)
	made, other := s.active(), s.active()
	before := s.get(made.ID)
	s.wantRecovery(made.Session, "first")
	s.wantBusy(made.Session, "second", claimFor-time.Minute, claimFor)
	s.wantRecovery(made.Session, "first") // repeated, as after a lost reply
	s.wantBusy(made.Session, "second", claimFor-time.Minute, claimFor)
	s.wantRecovery(other.Session, "second")
	if diff := cmp.Diff(before, s.get(made.ID)); diff != "" {
		t.Errorf("claims touched the session:\n%s", diff)
	}
}

func recoveryConcurrent(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		granted int
	)
	for i := range 16 {
		wg.Go(func() {
			r, err := s.store.ClaimRecovery(t.Context(), cluster.RecoveryClaim{ID: made.ID, ExpectedVersion: made.Version, Writer: fmt.Sprint("w", i), For: claimFor})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("ClaimRecovery: %v", err)
			}
			if r.Busy == 0 {
				granted++
			}
		})
	}
	wg.Wait()
	if granted != 1 {
		t.Errorf("granted to %d of 16, want one", granted)
	}
}

func recoveryEndsByUpdate(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.mustNote(made.ID, "k", "note")
	s.wantRecovery(made.Session, "first", "note")
	s.wantBusy(made.Session, "second", time.Second, claimFor)
	mapping := change(made.Session, "first")
	mapping.UpstreamSession, mapping.Endpoint = "new upstream session", "http://127.0.0.1:9001/mcp"
	var changed cluster.Session
	for range 2 { // repeated, as after a lost reply
		var err error
		if changed, err = s.store.Update(t.Context(), mapping); err != nil || changed.Version <= made.Version || changed.Recoveries() != 1 {
			t.Fatalf("Update: version %d after %d, %d recoveries, %v; want a later one, and one", changed.Version, made.Version, changed.Recoveries(), err)
		}
	}
	s.wantRecoveryRefused(made.Session, cluster.ErrConflict) // it was recovered already
	if _, err := s.store.Update(t.Context(), change(made.Session, "second")); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("Update by another writer: %v, want ErrConflict", err)
	}
	r := s.wantRecovery(changed, "second", "note") // the new one was lost, too
	if r.Session.UpstreamSession != mapping.UpstreamSession || r.Session.Endpoint != mapping.Endpoint || len(r.Initialize) == 0 {
		t.Errorf("after a recovery: %+v", r)
	}
}

// versionsNotReused: who knows of a recovery that a failover has lost is not taken for one who knows of the next.
func versionsNotReused(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.read(made.ID, "a/1")
	remap := func(of cluster.Session, to string) (cluster.Session, error) {
		c := change(of, "writer of "+to)
		c.UpstreamSession = to
		return s.store.Update(t.Context(), c)
	}
	mustRemap := func(to string) cluster.Session {
		t.Helper()
		changed, err := remap(made.Session, to)
		if err != nil {
			t.Fatalf("Update to %s: %v", to, err)
		}
		return changed
	}
	var lost cluster.Session
	s.b.Forget(t, made.ID, func() { lost = mustRemap("lost") })
	if got := s.get(made.ID); got.Version != made.Version || got.UpstreamSession != made.UpstreamSession {
		t.Fatalf("after the failover the record is %+v, want %+v", got, made.Session)
	}
	s.settle() // a failover takes time
	kept := mustRemap("kept")
	if kept.Version == lost.Version || kept.Version <= made.Version {
		t.Errorf("after version %d came %d, which is lost, and then %d", made.Version, lost.Version, kept.Version)
	}

	call := leaseCall(made, 1)
	call.KnownVersion = lost.Version
	if told, err := s.store.Lease(t.Context(), call); err != nil || told.IsKnown || told.Session.UpstreamSession != "kept" {
		t.Errorf("lease for who knows the lost one: %+v, %v", told, err)
	}
	if r := s.report(cluster.Report{ID: made.ID, Idle: -1}); r.Err != nil || r.Version != kept.Version {
		t.Errorf("report: version %d, %v; want %d", r.Version, r.Err, kept.Version)
	}
	if state := s.state(made.ID); state.Version != kept.Version {
		t.Errorf("state of the own stream: version %d, want %d", state.Version, kept.Version)
	}
	s.wantRecoveryRefused(lost, cluster.ErrConflict)
	if _, err := remap(lost, "third"); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("Update by who knows the lost one: %v, want ErrConflict", err)
	}
	late := cluster.EventAppend{
		ID: made.ID, Stream: cluster.OwnStream, First: 1, Claim: 1, UpstreamEvent: "up-1", Version: lost.Version, Events: [][]byte{[]byte("one")},
	}
	if _, err := s.store.AppendEvents(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	s.claim(cluster.StreamClaim{ID: made.ID, Owner: "a/1", Read: true}, cluster.StreamState{Reader: "a/1", Claim: 1, Last: 1})
}

func recoveryRefused(t *testing.T, s *suite) {
	s.open(nil)
	made, ended := s.active(), s.active()
	s.terminate(ended.ID)
	s.wantRecoveryRefused(cluster.Session{ID: s.token().ID, Version: 1}, cluster.ErrNotFound)
	s.wantRecoveryRefused(s.create().Session, cluster.ErrIllegalTransition)
	s.wantRecoveryRefused(s.get(ended.ID), cluster.ErrIllegalTransition)
	for _, version := range []int64{0, made.Version - 1, made.Version + 1} {
		s.wantRecoveryRefused(cluster.Session{ID: made.ID, Version: version}, cluster.ErrConflict)
	}
	for _, c := range []cluster.RecoveryClaim{
		{For: time.Second},
		{Writer: "w"},
		{Writer: "w", For: -time.Second},
		{Writer: "w", For: cluster.MaxDuration + 1},
	} {
		c.ID, c.ExpectedVersion = made.ID, made.Version
		_, err := s.store.ClaimRecovery(t.Context(), c)
		if err == nil || errors.Is(err, cluster.ErrStoreUnavailable) || errors.Is(err, cluster.ErrConflict) {
			t.Errorf("claim by %q for %v: %v, want a refusal that says so", c.Writer, c.For, err)
		}
	}
	s.wantRecovery(made.Session, "w") // none of them left a claim
}

func recoveryInitialize(t *testing.T, s *suite) {
	s.open(nil)
	message := bytes.Repeat([]byte("\x00\xffé\r\n"), 10_000)
	for _, want := range [][]byte{nil, []byte(`{"method":"initialize"}`), message} {
		token := s.token()
		c := creation(token)
		c.Initialize = want
		created, err := s.store.Create(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		made, err := s.store.Update(t.Context(), change(created.Session, "writer"))
		if err != nil {
			t.Fatal(err)
		}
		if r := s.wantRecovery(made, "w"); !bytes.Equal(r.Initialize, want) || (r.Initialize == nil) != (want == nil) {
			t.Errorf("the initialize message of %d bytes is told as one of %d", len(want), len(r.Initialize))
		}
	}
}

func notesOrdered(_ *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	longest := strings.Repeat("k", cluster.MaxNoteKey)
	binary := "\x00\xff\r\n" + strings.Repeat("x", cluster.MaxNoteMessage-4)
	s.mustNote(made.ID, "b", "of b")
	s.mustNote(made.ID, longest, "of the longest")
	s.mustNote(made.ID, "B", "of B")
	s.mustNote(made.ID, "a", binary)
	s.mustNote(made.ID, "\x00:\r\n ", "of strange bytes")
	for _, key := range []string{"i", "y", "u"} { // whatever else a store keeps beside them
		s.mustNote(made.ID, key, "of "+key)
	}
	s.mustNote(made.ID, "ä", "of ä")
	s.wantRecovery(made.Session, "w", "of strange bytes", "of B", binary, "of b", "of i", "of the longest", "of u", "of y", "of ä")
	for range 2 { // repeated, as after a lost reply
		s.mustNote(made.ID, "b", "of b, again")
		s.mustNote(made.ID, "a", "")
		s.mustNote(made.ID, "never noted", "")
	}
	s.wantRecovery(made.Session, "w", "of strange bytes", "of B", "of b, again", "of i", "of the longest", "of u", "of y", "of ä")
	bare := s.bare(s.token()) // of which nothing else is kept: the note alone must not stay for ever
	s.mustNote(bare.ID, "k", "note")
	early := s.create() // an initializing session has notes, too
	s.mustNote(early.ID, "k", "early")
	activated, err := s.store.Update(s.t.Context(), change(early.Session, "w"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.wantRecovery(activated, "w", "early")
}

func notesBounded(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	want := make([]string, 0, cluster.MaxNotes)
	for i := range cluster.MaxNotes {
		key := fmt.Sprintf("k%02d", i)
		want = append(want, "of "+key)
		for range 2 { // one that is replaced counts once
			s.mustNote(made.ID, key, "of "+key)
		}
	}
	full := func() {
		t.Helper()
		if err := s.note(made.ID, "one more", "x"); !errors.Is(err, cluster.ErrNotesFull) {
			t.Errorf("one note more than %d: %v, want ErrNotesFull", cluster.MaxNotes, err)
		}
		s.wantRecovery(made.Session, "w", want...)
	}
	full()
	want[7] = "replaced"
	s.mustNote(made.ID, "k07", want[7])
	full()
	for range 2 { // one that is forgotten again makes no more room
		s.mustNote(made.ID, "k63", "")
	}
	want[63] = "of another"
	s.mustNote(made.ID, "k99", want[63])
	full()
}

func notesMalformed(t *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	for name, n := range map[string]cluster.Note{
		"no key":         {Message: []byte("x")},
		"a long key":     {Key: strings.Repeat("k", cluster.MaxNoteKey+1), Message: []byte("x")},
		"a long message": {Key: "k", Message: make([]byte, cluster.MaxNoteMessage+1)},
	} {
		n.ID = made.ID
		err := s.store.Note(t.Context(), n)
		if err == nil || errors.Is(err, cluster.ErrStoreUnavailable) || errors.Is(err, cluster.ErrNotesFull) {
			t.Errorf("%s: %v, want a refusal that says so", name, err)
		}
	}
	s.wantRecovery(made.Session, "w")
}

// wantNoNotes fails the test unless nothing can be noted of a session.
func (s *suite) wantNoNotes(id cluster.ID, when string) {
	s.t.Helper()
	for _, message := range []string{"note", ""} {
		if err := s.note(id, "k", message); !errors.Is(err, cluster.ErrNotFound) {
			s.t.Errorf("%s: a note of %d bytes: %v, want ErrNotFound", when, len(message), err)
		}
	}
}

func notesEnd(_ *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.mustNote(made.ID, "k", "note")
	s.wantRecovery(made.Session, "w", "note")
	s.terminate(made.ID)
	s.wantNoNotes(made.ID, "ended")
	s.wantRecoveryRefused(s.get(made.ID), cluster.ErrIllegalTransition)
	s.wantNoNotes(s.token().ID, "unknown")
}

// notesAndLongStrings: what is kept of an ended session is its record, whole.
func notesAndLongStrings(t *testing.T, s *suite) {
	s.open(nil)
	long := func(what string) string { return what + strings.Repeat(" and so on", 30) }
	c := creation(s.token())
	c.ClientName, c.ClientVersion, c.Endpoint = long("client"), long("1.0"), long("http://127.0.0.1:9000/")
	created, err := s.store.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	activation := change(created.Session, "writer")
	activation.UpstreamSession = long("upstream session")
	made, err := s.store.Update(t.Context(), activation)
	if err != nil {
		t.Fatal(err)
	}
	s.mustNote(made.ID, "n", "note")
	s.mustNote(made.ID, "w", "note")
	s.read(made.ID, "a/1")
	s.wantRecovery(made, "w", "note", "note")
	ended, err := s.store.Terminate(t.Context(), made.ID, cluster.StatusClosed)
	if err != nil {
		t.Fatal(err)
	}
	for which, got := range map[string]cluster.Session{"told": ended, "stored": s.get(made.ID)} {
		want := made
		want.Status, want.Version, want.EndedAt, want.DeadlineAt = cluster.StatusClosed, made.Version+1, got.EndedAt, got.DeadlineAt
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the ended session as %s (-want +got):\n%s", which, diff)
		}
	}
}

func recoveryRunsOut(t *testing.T, s *suite) {
	s.open(func(c *cluster.Config) { c.IdleTimeout = 3 * claimFor })
	made := s.active()
	s.wantRecovery(made.Session, "first")
	s.b.Advance(claimFor - time.Millisecond)
	s.wantBusy(made.Session, "second", time.Millisecond, time.Millisecond)
	s.b.Advance(time.Millisecond)
	s.wantRecovery(made.Session, "second")
	s.wantBusy(made.Session, "first", claimFor, claimFor)
	s.b.Advance(time.Minute)
	s.wantRecovery(made.Session, "second") // granted anew
	s.wantBusy(made.Session, "first", claimFor, claimFor)
	// The version decides in the end, not the claim.
	if _, err := s.store.Update(t.Context(), change(made.Session, "first")); err != nil {
		t.Errorf("Update by whose claim ran out: %v", err)
	}
	if _, err := s.store.Update(t.Context(), change(made.Session, "second")); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("Update by who was too late: %v, want ErrConflict", err)
	}
}

func recoveryDue(_ *testing.T, s *suite) {
	s.open(nil)
	made := s.active()
	s.mustNote(made.ID, "k", "note")
	s.b.Advance(idle())
	s.wantNoNotes(made.ID, "past its end")
	s.wantRecoveryRefused(made.Session, cluster.ErrIllegalTransition)
}
