package redisstore_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// What belongs to the stream and the recovery of a live session goes when it ends; of its long strings, only those of the
// record stay.
func TestAnEndLeavesOnlyTheRecordsLongStrings(t *testing.T) {
	t.Parallel()
	store, client, _ := newStore(t)
	long := strings.Repeat("long ", 20)
	for name, c := range map[string]struct {
		clientName, upstreamSession string
		want                        []string
	}{
		"no long strings":  {"client", "x", nil},
		"two long strings": {long, long, []string{"n", "x"}},
	} {
		creation := newCreation(t)
		creation.ClientName, creation.Initialize = c.clientName, []byte("{}")
		id := creation.Token.ID
		_, errCreate := store.Create(t.Context(), creation)
		made, errUpdate := store.Update(t.Context(), cluster.Change{
			ID: id, ExpectedVersion: 1, Writer: "w", Activation: cluster.Activation{UpstreamSession: c.upstreamSession},
		})
		state, errClaim := store.ClaimStream(t.Context(), cluster.StreamClaim{ID: id, Owner: "a/1", Read: true, Listen: true})
		_, errAppend := store.AppendEvents(t.Context(), cluster.EventAppend{
			ID: id, Stream: cluster.OwnStream, First: 1, Claim: state.Claim, UpstreamEvent: "up", Version: state.Version, Events: [][]byte{[]byte("one")},
		})
		_, errRecover := store.ClaimRecovery(t.Context(), cluster.RecoveryClaim{ID: id, ExpectedVersion: made.Version, Writer: "w2", For: time.Minute})
		errNote := store.Note(t.Context(), cluster.Note{ID: id, Key: "n", Message: []byte("note")})
		_, errEnd := store.Terminate(t.Context(), id, cluster.StatusClosed)
		for call, err := range map[string]error{
			"create": errCreate, "update": errUpdate, "claim": errClaim, "append": errAppend, "recovery": errRecover, "note": errNote, "end": errEnd,
		} {
			if err != nil {
				t.Fatalf("%s: %s: %v", name, call, err)
			}
		}
		left, err := client.HKeys(t.Context(), redisstore.DefaultPrefix+":{0}:more:"+id.String()).Result()
		if slices.Sort(left); err != nil || !slices.Equal(left, c.want) {
			t.Errorf("%s: the ended session has %q, %v; want %q", name, left, err, c.want)
		}
	}
}
