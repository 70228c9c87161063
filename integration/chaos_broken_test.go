package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// Somebody has put texts in place of records, and spoiled times and scores. Whoever is well ends when it should, and stays until
// then; listings and cleanups by hand go on.
func TestChaosBrokenRecordsStopNobody(t *testing.T) {
	t.Parallel()
	const broken = 5
	w := newChaosWorld(t, newChaosServer(t, redisserver.Options{}), nil)
	due := w.mortals(t, dueSessions)
	well := w.mortals(t, dueSessions)
	w.doom(t, due)
	key := func(kind string, k knownSession) string {
		return w.options.Prefix + ":{0}:" + kind + ":" + k.ID.String()
	}
	client := w.store.Client()
	for i, spoiled := range []knownSession{due[0], due[50], due[100], well[0], well[1]} {
		if err := client.Set(t.Context(), key("session", spoiled), "spoiled", 0).Err(); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	_, err := client.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
		pipe.HSet(t.Context(), key("session", well[2]), "a", "yesterday", "q", "many")
		pipe.ZAdd(t.Context(), w.options.Prefix+":{0}:lru", redis.Z{Score: math.Inf(1), Member: well[3].ID.String()})
		pipe.ZAdd(t.Context(), w.options.Prefix+":{0}:deadlines", redis.Z{Score: math.Inf(1), Member: well[3].ID.String()})
		pipe.Set(t.Context(), key("pending", well[4]), "spoiled", 0)
		pipe.Set(t.Context(), key("pending", due[1]), "spoiled", 0)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	at := []string{"--redis", w.at.URL(storeUser), "--prefix", w.options.Prefix, "--output", "json"}
	var page struct {
		Sessions []listedSession `json:"sessions"`
	}
	decode(t, command(t, 0, append([]string{"session", "list", "--limit", "1000"}, at...)...), &page)
	if want := 2*dueSessions + keptSessions - broken - 2; len(page.Sessions) < want || len(page.Sessions) > want+2 {
		t.Errorf("%d sessions are listed, want about %d", len(page.Sessions), want)
	}
	command(t, 0, append([]string{"session", "cleanup", "--status", "failed", "--yes"}, at...)...)
	command(t, 0, append([]string{"session", "cleanup", "--principal", "nobody", "--dry-run"}, at...)...)

	begun := time.Now()
	leader := w.replicas(t, 1)[0]
	w.awaitExpired(t, dueSessions-3)
	within(t, "from the start until what was due is gone, broken or not", time.Since(begun), successionBound)
	// A walk comes once every replica could say that it lives; where a call of it takes too long, another one does 12 s later.
	eventually(t, 2*recovery, func(ctx context.Context) error {
		n, err := leader.metric(ctx, `shadowcat_repairs_total{kind="count_wrong"}`)
		if err == nil && n == 0 {
			err = errNotYet
		}
		return err
	})
	t.Logf("the first walk was over %s after the start", time.Since(begun).Round(time.Millisecond))
	for _, kind := range []cluster.RepairKind{cluster.RepairRecordBroken, cluster.RepairScoreWrong} {
		n, err := leader.metric(t.Context(), fmt.Sprintf(`shadowcat_repairs_total{kind=%q}`, kind))
		t.Logf("%s: %.0f mended", kind, n)
		if err != nil || n == 0 {
			t.Errorf("%v %s were mended, %v; want some", n, kind, err)
		}
	}
	for i, k := range well {
		got, err := w.store.Get(t.Context(), k.ID)
		if i == 3 && got.Status == cluster.StatusExpired && got.EndedAt.Sub(begun) > chaosIdle {
			continue // nobody knew its end any more: it was given as long as it could have had
		}
		if i < 2 != (err != nil) || i >= 2 && !got.Status.Live() {
			t.Errorf("session %d, which was well: %q, %v", i, got.Status, err)
		}
	}
	w.finish(t)
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.NewDecoder(strings.NewReader(text)).Decode(into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
