package redisstore_test

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const auditKey = "shadowcat:audit"

// audited is a store inside a synctest bubble, with a stream of audit records.
type audited struct {
	client *redis.Client
	stream *redisstore.AuditStream
	log    *syncBuffer
	away   *awayHook
	stop   func()
}

// awayHook fails everything while the store is away.
type awayHook struct {
	mu   sync.Mutex
	away bool
}

func (h *awayHook) set(away bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away = away
}

func (h *awayHook) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away {
		return errCutOff
	}
	return nil
}

// DialHook and the others make it a hook of the client.
func (h *awayHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *awayHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h *awayHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := h.err(); err != nil {
			return err
		}
		return next(ctx, cmds)
	}
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) count(words string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), words)
}

// inAudit runs a test in a bubble. The stream's goroutine ends with the test at the latest.
func inAudit(t *testing.T, most int, test func(*testing.T, *audited)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client := bubbleClient(t)
		w := &audited{client: client, log: &syncBuffer{}, away: &awayHook{}}
		client.AddHook(w.away)
		store, err := redisstore.New(client, redisstore.Options{Config: cluster.DefaultConfig(), AuditStream: most, Logger: slog.New(slog.NewTextHandler(w.log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		w.stream = store.NewAuditStream(nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.stream.Run(ctx) }()
		w.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		t.Cleanup(w.stop)
		test(t, w)
	})
}

func (w *audited) records(t *testing.T) []redis.XMessage {
	t.Helper()
	records, err := w.client.XRange(t.Context(), auditKey, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func record(reason string) cluster.Audit {
	return cluster.Audit{At: time.UnixMilli(1_732_312_345_678), Action: cluster.ActionClosed, Reason: reason}
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestAuditRecordsReachTheStream(t *testing.T) {
	t.Parallel()
	inAudit(t, 1000, func(t *testing.T, w *audited) {
		token, err := cluster.NewToken()
		if err != nil {
			t.Fatal(err)
		}
		full := record("the client has ended it")
		full.Session, full.Principal, full.Upstream, full.Actor, full.By = token.ID, "ann", "files", cluster.ActorClient, "r/1"
		w.stream.Audited(full)
		pass(time.Second)
		got := w.records(t)
		want := map[string]any{
			"at": "1732312345678", "action": "closed", "session": token.ID.String(), "principal": "ann", "upstream": "files",
			"actor": "client", "by": "r/1", "reason": "the client has ended it",
		}
		if len(got) != 1 {
			t.Fatalf("%d records, want 1", len(got))
		}
		if diff := cmp.Diff(want, got[0].Values); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
	})
}

func TestTheAuditStreamIsCappedAndInOrder(t *testing.T) {
	t.Parallel()
	inAudit(t, 100, func(t *testing.T, w *audited) {
		for i := range 950 {
			w.stream.Audited(record(strconv.Itoa(i)))
		}
		pass(time.Second)
		got := w.records(t)
		if len(got) < 100 || len(got) > 250 || w.stream.Dropped() != 0 { // about so many: Redis trims whole nodes
			t.Fatalf("%d records, %d dropped; want about 100, none", len(got), w.stream.Dropped())
		}
		for i, r := range got {
			if want := strconv.Itoa(950 - len(got) + i); r.Values["reason"] != want {
				t.Fatalf("record %d is %v, want %s", i, r.Values["reason"], want)
			}
		}
	})
}

func TestAuditRecordsAreDroppedAndCountedWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	inAudit(t, 100_000, func(t *testing.T, w *audited) {
		w.away.set(true)
		for range 10 {
			w.stream.Audited(record("lost"))
			pass(200 * time.Millisecond)
		}
		if got := w.stream.Dropped(); got != 10 {
			t.Errorf("%d dropped, want 10", got)
		}
		if got := w.log.count("cannot be written"); got != 1 {
			t.Errorf("the log says %d times that records cannot be written, want once", got)
		}
		w.away.set(false)
		w.stream.Audited(record("kept"))
		pass(200 * time.Millisecond)
		if got := w.records(t); len(got) != 1 || got[0].Values["reason"] != "kept" {
			t.Errorf("afterwards: %v, want one record", got)
		}
		if got := w.log.count("again"); got != 1 {
			t.Errorf("the log says %d times that it works again, want once", got)
		}
	})
}

func TestTheAuditQueueIsBounded(t *testing.T) {
	t.Parallel()
	inAudit(t, 1_000_000, func(t *testing.T, w *audited) {
		const queue = 10_000
		for range queue + 7 { // nothing is written meanwhile: time stands still
			w.stream.Audited(record("one of many"))
		}
		if got := w.stream.Dropped(); got != 7 {
			t.Errorf("%d dropped, want 7", got)
		}
		pass(time.Second)
		if n, err := w.client.XLen(t.Context(), auditKey).Result(); err != nil || n != queue {
			t.Errorf("%d written, %v; want %d", n, err, queue)
		}
	})
}

func TestTheLastAuditRecordsAreWrittenAtTheStop(t *testing.T) {
	t.Parallel()
	inAudit(t, 10_000, func(t *testing.T, w *audited) {
		for range 450 {
			w.stream.Audited(record("late"))
		}
		w.stop()
		if got := len(w.records(t)); got != 450 || w.stream.Dropped() != 0 {
			t.Errorf("%d written, %d dropped; want 450, none", got, w.stream.Dropped())
		}
	})
}

func TestWhatCannotBeWrittenAtTheStopIsCounted(t *testing.T) {
	t.Parallel()
	inAudit(t, 10_000, func(t *testing.T, w *audited) {
		w.away.set(true)
		for range 450 {
			w.stream.Audited(record("too late"))
		}
		w.stop()
		if got := w.stream.Dropped(); got != 450 {
			t.Errorf("%d dropped, want 450", got)
		}
	})
}
