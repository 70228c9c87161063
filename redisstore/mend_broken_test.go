package redisstore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// driftsOfShapes are keys of wrong types, and records and scores that hold what they should not.
var driftsOfShapes = map[string]drift{
	"a text in place of a live session's record": func(w *drifted) map[cluster.Repair]int {
		w.spoil(w.key(w.live.ID, "session"))
		return merged(ofOne(w.live.ID, cluster.RepairRecordBroken, cluster.RepairPlaceWrong), ofOne(nobody, cluster.RepairCountWrong))
	},
	"a text in place of an ended session's record": func(w *drifted) map[cluster.Repair]int {
		w.spoil(w.key(w.ended.ID, "session"))
		return merged(ofOne(w.ended.ID, cluster.RepairRecordBroken), ofOne(nobody, cluster.RepairCountWrong))
	},
	"a status that there is not": func(w *drifted) map[cluster.Repair]int {
		w.do("HSET", w.key(w.live.ID, "session"), "s", "q")
		return merged(ofOne(w.live.ID, cluster.RepairRecordBroken, cluster.RepairPlaceWrong), ofOne(nobody, cluster.RepairCountWrong))
	},
	"texts in place of a live session's other keys": func(w *drifted) map[cluster.Repair]int {
		want := make(map[cluster.Repair]int)
		for _, kind := range []string{"more", "pending", "events", "heads", "frames"} {
			w.spoil(w.key(w.live.ID, kind))
			want = merged(want, ofOne(w.live.ID, cluster.RepairRecordBroken))
		}
		return want
	},
	"a text in place of an ended session's frames": func(w *drifted) map[cluster.Repair]int {
		w.spoil(w.key(w.ended.ID, "frames"))
		return ofOne(w.ended.ID, cluster.RepairRecordBroken)
	},
	"no numbers in a live session's record": func(w *drifted) map[cluster.Repair]int {
		w.do("HSET", w.key(w.live.ID, "session"), "v", "two", "q", "1e400", "t", "0x10", "c", "", "a", "yesterday")
		kinds := slices.Repeat([]cluster.RepairKind{cluster.RepairRecordBroken}, 5)
		return ofOne(w.live.ID, append(kinds, cluster.RepairScoreWrong, cluster.RepairScoreWrong)...)
	},
	"numbers that cannot be": func(w *drifted) map[cluster.Repair]int {
		w.do("HSET", w.key(w.live.ID, "session"), "v", "-1", "q", "99999999999999999999", "c", "5", "a", "99999999999999")
		kinds := slices.Repeat([]cluster.RepairKind{cluster.RepairRecordBroken}, 4)
		return ofOne(w.live.ID, append(kinds, cluster.RepairScoreWrong, cluster.RepairScoreWrong)...)
	},
	"no moment of the end in an ended session's record": func(w *drifted) map[cluster.Repair]int {
		w.do("HDEL", w.key(w.ended.ID, "session"), "z")
		return ofOne(w.ended.ID, cluster.RepairRecordBroken, cluster.RepairScoreWrong)
	},
	"scores that records contradict": func(w *drifted) map[cluster.Repair]int {
		w.do("ZADD", w.key(w.live.ID, "lru"), 5, w.live.ID.String())
		w.do("ZADD", w.key(w.other.ID, "deadlines"), w.now.Add(time.Minute).UnixMilli(), w.other.ID.String())
		w.do("ZADD", w.key(w.ended.ID, "ended"), w.now.Add(time.Hour).UnixMilli(), w.ended.ID.String())
		kind := cluster.RepairScoreWrong
		return merged(ofOne(w.live.ID, kind), ofOne(w.other.ID, kind), ofOne(w.ended.ID, kind))
	},
	"scores that are no times": func(w *drifted) map[cluster.Repair]int {
		w.do("ZADD", w.key(w.live.ID, "lru"), "+inf", w.live.ID.String())
		w.do("ZADD", w.key(w.live.ID, "deadlines"), "-inf", w.live.ID.String())
		w.do("ZADD", w.key(w.other.ID, "lru"), "-inf", w.other.ID.String())
		w.do("ZADD", w.key(w.other.ID, "deadlines"), "+inf", w.other.ID.String())
		w.do("ZADD", w.key(w.ended.ID, "ended"), "1.5", w.ended.ID.String())
		kind := cluster.RepairScoreWrong
		return merged(ofOne(w.live.ID, kind, kind), ofOne(w.other.ID, kind, kind), ofOne(w.ended.ID, kind))
	},
	"a text in place of the places": func(w *drifted) map[cluster.Repair]int {
		w.spoil(places(owner))
		w.do("EXPIRE", places(owner), 100_000)
		return merged(ofOne(nobody, cluster.RepairRecordBroken), ofOne(w.live.ID, cluster.RepairPlaceWrong), ofOne(w.other.ID, cluster.RepairPlaceWrong))
	},
}

// spoil puts a text in place of a key.
func (w *drifted) spoil(key string) {
	w.t.Helper()
	w.do("SET", key, "spoiled")
}

func TestOneWalkMendsWhatIsBroken(t *testing.T) {
	t.Parallel()
	for setup, size := range setups {
		for name, drift := range driftsOfShapes {
			t.Run(setup+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := newDrifted(t, size.servers, size.partitions)
				w.wantMended(drift(w))
			})
		}
	}
}

// What a partition shares is removed and made anew: nobody is lost.
func TestAPartitionsKeysOfAWrongTypeAreMadeAnew(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"lru", "deadlines", "ended", "counts"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newDrifted(t, 1, 1)
			w.spoil(w.key(w.live.ID, kind))
			swept, err := w.store.Sweep(t.Context(), cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: 5, Leader: true}, Limit: 10})
			if err != nil {
				swept, err = w.store.Sweep(t.Context(), cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: 5, Leader: true}, Limit: 10})
			}
			if err != nil || len(swept.Expired)+len(swept.Purged) > 0 {
				t.Errorf("swept %+v, %v; want nothing", swept, err)
			}
			w.walk()
			w.walk()
			w.wantMended(nil)
			for _, session := range []cluster.Session{w.live, w.other, w.ended} {
				if got, err := w.store.Get(t.Context(), session.ID); err != nil || got.Status != session.Status {
					t.Errorf("a %s session is %q, %v", session.Status, got.Status, err)
				}
			}
		})
	}
	t.Run("fence", func(t *testing.T) {
		t.Parallel()
		w := newDrifted(t, 1, 1)
		w.do("DEL", strings.TrimSuffix(w.key(w.live.ID, "lru"), "lru")+"fence")
		w.do("LPUSH", strings.TrimSuffix(w.key(w.live.ID, "lru"), "lru")+"fence", 1)
		swept, err := w.store.Sweep(t.Context(), cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: 5, Leader: true}, Limit: 10})
		if err != nil || len(swept.Repairs) != 1 || !swept.More {
			t.Errorf("swept %+v, %v; want one repair, and more to do", swept, err)
		}
		_, err = w.store.Sweep(t.Context(), cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: 5, Leader: true}, Limit: 10})
		_, late := w.store.Sweep(t.Context(), cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: 4, Leader: true}, Limit: 10})
		if err != nil || !errors.Is(late, cluster.ErrFenced) {
			t.Errorf("swept again: %v, and late: %v; want no error, and ErrFenced", err, late)
		}
	})
}

// brokenHeads makes a session of each kind that is due, and breaks some of them.
func (w *drifted) brokenHeads() (good, broken []cluster.Session) {
	w.t.Helper()
	for i := range 12 {
		s := w.session()
		if i%4 > 0 {
			good = append(good, s)
			continue
		}
		w.spoil(w.key(s.ID, "session"))
		broken = append(broken, s)
	}
	return good, broken
}

func TestASweepIsNotStoppedByWhatIsBroken(t *testing.T) {
	t.Parallel()
	for setup, size := range setups {
		t.Run(setup, func(t *testing.T) {
			t.Parallel()
			w := newDrifted(t, size.servers, size.partitions)
			good, broken := w.brokenHeads()
			w.do("HSET", w.key(good[0].ID, "session"), "v", "nonsense", "q", "", "c", "nonsense")
			w.do("HSET", w.key(good[0].ID, "counts"), "a", "nonsense")
			w.spoil(w.key(good[1].ID, "events"))
			w.spoil(w.key(good[1].ID, "pending"))
			w.spoil(w.key(w.ended.ID, "session"))
			w.pass(31 * time.Minute)
			var all cluster.Swept
			for range 20 {
				swept, err := w.store.Sweep(t.Context(), cluster.SweepCall{Cleanup: cluster.Cleanup{Epoch: 5, Leader: true}, Limit: 3})
				if err != nil {
					t.Fatal(err)
				}
				all.Expired, all.Repairs = append(all.Expired, swept.Expired...), append(all.Repairs, swept.Repairs...)
				if !swept.More {
					break
				}
			}
			want := append(slices.Clone(good), w.live, w.other)
			if len(all.Expired) != len(want) {
				t.Errorf("%d have expired, want %d", len(all.Expired), len(want))
			}
			kinds := make(map[cluster.RepairKind]int)
			for _, repair := range all.Repairs {
				kinds[repair.Kind]++
			}
			if kinds[cluster.RepairRecordBroken] < len(broken)+1 {
				t.Errorf("%v were mended, want at least %d broken records", kinds, len(broken)+1)
			}
			if stats, err := w.store.Stats(t.Context()); err != nil || stats.Due > 0 {
				t.Errorf("%d are still due, %v", stats.Due, err)
			}
		})
	}
}

func TestEmergencyCleanupIsNotStoppedByWhatIsBroken(t *testing.T) {
	t.Parallel()
	w := newDrifted(t, 1, 1)
	good, _ := w.brokenHeads()
	w.spoil(w.key(w.ended.ID, "session"))
	w.pass(2 * time.Minute)
	w.full()
	gone, repairs := 0, 0
	for range 10 {
		relieved, err := w.store.Relieve(t.Context(), cluster.RelieveCall{Above: 0.9, Limit: 4, Force: true})
		if err != nil {
			t.Fatal(err)
		}
		gone, repairs = gone+len(relieved.Evicted), repairs+len(relieved.Repairs)
		if relieved.Spent {
			break
		}
	}
	if gone != len(good)+2 || repairs == 0 {
		t.Errorf("%d were evicted and %d mended, want %d and some", gone, repairs, len(good)+2)
	}
}

func TestListingsLeaveOutWhatIsBroken(t *testing.T) {
	t.Parallel()
	w := newDrifted(t, 1, 1)
	good, _ := w.brokenHeads()
	w.do("HSET", w.key(good[0].ID, "session"), "q", "nonsense")
	w.do("ZADD", w.key(good[0].ID, "lru"), "+inf", good[2].ID.String(), 1, "no session")
	w.do("ZADD", w.key(good[0].ID, "deadlines"), 1, "no session")
	page, err := w.store.List(t.Context(), cluster.Query{Limit: 100})
	if err != nil || len(page.Sessions) != len(good)+2 {
		t.Errorf("%d sessions listed, %v; want %d", len(page.Sessions), err, len(good)+2)
	}
	for i := range page.Sessions { // one by one: the place in the index is kept
		if page.Sessions[i].Status != cluster.StatusActive {
			t.Errorf("a session is listed as %q", page.Sessions[i].Status)
		}
	}
	var ids []cluster.ID
	for cursor, first := "", true; first || cursor != ""; first = false {
		page, err := w.store.List(t.Context(), cluster.Query{Limit: 1, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Sessions {
			ids = append(ids, s.ID)
		}
		if cursor = page.Next; len(ids) > 100 {
			t.Fatal("the listing has no end")
		}
	}
	if len(ids) != len(good)+2 {
		t.Errorf("%d sessions listed one by one, want %d", len(ids), len(good)+2)
	}
	counts, _, err := w.store.Tally(t.Context(), cluster.Query{Principal: owner}, nil)
	if err != nil || counts[cluster.StatusActive] != int64(len(good)+2) {
		t.Errorf("counted %v, %v; want %d active", counts, err, len(good)+2)
	}
}

// full makes a server say that its memory is used up.
func (w *drifted) full() {
	for _, s := range w.servers {
		s.Server().SetPreHook(func(peer *server.Peer, command string, _ ...string) bool {
			if !strings.EqualFold(command, "info") {
				return false
			}
			peer.WriteBulk("# Memory\r\nused_memory:99\r\nmaxmemory:100\r\n")
			return true
		})
	}
}
