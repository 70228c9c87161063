package integration_test

import (
	"bytes"
	"strconv"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// streamsLossily takes a stream over and stores in it. A listener may be counted twice, which harms nobody; a claim is not.
func streamsLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	dead, err := store.ClaimStream(t.Context(), cluster.StreamClaim{ID: k.ID, Owner: "dead/1", Read: true})
	if err != nil {
		t.Fatal(err)
	}
	var state cluster.StreamState
	lost := lose(func() {
		state, err = store.ClaimStream(t.Context(), cluster.StreamClaim{ID: k.ID, Owner: "a/1", Read: true, From: dead.Claim, Listen: true})
	})
	if err != nil || state.Reader != "a/1" || state.Claim != dead.Claim+1 || state.Listener < 1 || state.Listener > 2 {
		t.Errorf("claim: %+v, %v; want one more than %d, and a listener", state, err, dead.Claim)
	}
	var appended cluster.Appended
	lostAppend := lose(func() {
		appended, err = store.AppendEvents(t.Context(), cluster.EventAppend{
			ID: k.ID, Stream: cluster.OwnStream, Claim: state.Claim, First: 1, UpstreamEvent: "up-2", Version: state.Version, Events: [][]byte{{'a'}, {'b'}},
		})
	})
	if err != nil || appended.Listener != state.Listener {
		t.Errorf("append: %+v, %v; want listener %d", appended, err, state.Listener)
	}
	page := store.ReadEvents(t.Context(), []cluster.EventQuery{{ID: k.ID, Stream: cluster.OwnStream, Limit: 10}})[0]
	if got := string(bytes.Join(page.Events, nil)); page.Err != nil || got != "ab" || page.Last != 2 {
		t.Errorf("the stream holds %q up to %d, %v; want ab up to 2", got, page.Last, page.Err)
	}
	return lost || lostAppend
}

func releaseLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	state, err := store.ClaimStream(t.Context(), cluster.StreamClaim{ID: k.ID, Owner: "a/1", Read: true})
	if err != nil {
		t.Fatal(err)
	}
	lost := lose(func() { err = store.ReleaseStream(t.Context(), k.ID, state.Claim) })
	if got := store.StreamStates(t.Context(), []cluster.ID{k.ID})[0]; err != nil || got.Err != nil || got.Reader != "" || got.Claim != state.Claim {
		t.Errorf("release: %v; the stream is %+v", err, got)
	}
	return lost
}

func statesLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	var state cluster.StreamState
	lost := lose(func() { state = store.StreamStates(t.Context(), []cluster.ID{k.ID})[0] })
	checkUnavailable(t, "states", state.Err, lost)
	return lost
}

func recoveryLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	claim := cluster.RecoveryClaim{ID: k.ID, ExpectedVersion: k.Version, Writer: "w", For: time.Minute}
	var r cluster.Recovery
	var err error
	lost := lose(func() { r, err = store.ClaimRecovery(t.Context(), claim) })
	if err != nil || r.Busy != 0 || r.Session.ID != k.ID {
		t.Errorf("recovery: %+v, %v; want it granted", r, err)
	}
	claim.Writer = "another"
	if r, err = store.ClaimRecovery(t.Context(), claim); err != nil || r.Busy <= 0 {
		t.Errorf("recovery by another: %+v, %v; want it busy", r, err)
	}
	return lost
}

func notesLossily(t *testing.T, store *redisstore.Store, lose func(func()) bool) bool {
	k := mustActive(t, store)
	for i := range cluster.MaxNotes - 1 {
		if err := store.Note(t.Context(), cluster.Note{ID: k.ID, Key: strconv.Itoa(i), Message: []byte{'n'}}); err != nil {
			t.Fatal(err)
		}
	}
	note := func(key, message string) func() bool {
		return func() bool {
			return lose(func() {
				if err := store.Note(t.Context(), cluster.Note{ID: k.ID, Key: key, Message: []byte(message)}); err != nil {
					t.Errorf("note of %d bytes: %v", len(message), err)
				}
			})
		}
	}
	lost := false
	for _, do := range []func() bool{note("k", "kept"), note("k", ""), note("k", "kept")} { // counted twice, there were no room
		lost = do() || lost
	}
	r, err := store.ClaimRecovery(t.Context(), cluster.RecoveryClaim{ID: k.ID, ExpectedVersion: k.Version, Writer: "w", For: time.Minute})
	if err != nil || len(r.Notes) != cluster.MaxNotes {
		t.Errorf("%d notes, %v; want %d", len(r.Notes), err, cluster.MaxNotes)
	}
	return lost
}
