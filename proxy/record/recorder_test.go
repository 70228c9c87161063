package record_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
	"github.com/tapwire/shadowcat-cluster/proxy/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store remembers what is appended. do, if there is one, comes first and may refuse.
type store struct {
	cluster.FrameStore

	do func(ctx context.Context, id cluster.ID, frames []cluster.Frame) error

	mu    sync.Mutex
	calls int
	got   map[cluster.ID][]cluster.Frame
}

func (s *store) AppendFrames(ctx context.Context, id cluster.ID, frames []cluster.Frame) error {
	if s.do != nil {
		if err := s.do(ctx, id, frames); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got == nil {
		s.got = make(map[cluster.ID][]cluster.Frame)
	}
	s.calls++
	s.got[id] = append(s.got[id], frames...)
	return nil
}

func (s *store) of(id cluster.ID) []cluster.Frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[id]
}

// tally counts what became of frames.
type tally struct{ recorded, dropped atomic.Int64 }

func (t *tally) FramesRecorded(n int) { t.recorded.Add(int64(n)) }
func (t *tally) FramesDropped(n int)  { t.dropped.Add(int64(n)) }

// running is a recorder that runs until the test stops it.
type running struct {
	*record.Recorder
	tally

	t    *testing.T
	log  bytes.Buffer
	stop func()
}

// start runs a recorder, inside a synctest bubble.
func start(t *testing.T, s *store, change ...func(*record.Config)) *running {
	t.Helper()
	r := &running{t: t}
	cfg := record.Config{Store: s, Mode: record.Full, Observer: &r.tally, Replica: "a/1", Logger: slog.New(slog.NewTextHandler(&r.log, nil))}
	for _, c := range change {
		c(&cfg)
	}
	r.Recorder = record.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// wants checks what became of all that was recorded, after the end.
func (r *running) wants(recorded, dropped int64) {
	r.t.Helper()
	r.stop()
	if got, lost := r.recorded.Load(), r.dropped.Load(); got != recorded || lost != dropped || r.Dropped() != dropped {
		r.t.Errorf("%d recorded, %d dropped, by the observer; %d dropped; want %d and %d", got, lost, r.Dropped(), recorded, dropped)
	}
}

func newID(t *testing.T) cluster.ID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func entry(method string) record.Entry {
	text := `{"jsonrpc":"2.0","method":"` + method + `"}`
	return record.Entry{Direction: cluster.FromClient, Method: method, Size: len(text), Payload: []byte(text)}
}

// hangs is a store that never answers.
func hangs(ctx context.Context, _ cluster.ID, _ []cluster.Frame) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", cluster.ErrStoreUnavailable, ctx.Err())
}

func TestRecordingNeverWaitsForAStoreThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const sessions, each = 50, 1000
		r := start(t, &store{do: hangs})
		for n := range each {
			begun := time.Now()
			for range sessions {
				r.Record(newID(t), entry("m"+strconv.Itoa(n)))
			}
			if waited := time.Since(begun); waited > 0 { // time passes only while all goroutines wait
				t.Fatalf("recording waited %v", waited)
			}
			time.Sleep(10 * time.Millisecond)
		}
		begun := time.Now()
		r.wants(0, sessions*each)
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("the end waited %v for the store", took)
		}
		if n := strings.Count(r.log.String(), "cannot be recorded"); n != 1 {
			t.Errorf("that the store does not answer is logged %d times, want once", n)
		}
	})
}

func TestFramesOfASessionKeepTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		s := &store{do: func(context.Context, cluster.ID, []cluster.Frame) error {
			time.Sleep(time.Duration(n.Add(1)%7) * 40 * time.Millisecond)
			return nil
		}}
		r := start(t, s)
		ids := make([]cluster.ID, 20)
		var clients sync.WaitGroup
		for i := range ids {
			ids[i] = newID(t)
			clients.Go(func() {
				for n := range 300 {
					r.Record(ids[i], entry(strconv.Itoa(n)))
					time.Sleep(time.Millisecond)
				}
			})
		}
		clients.Wait()
		time.Sleep(10 * time.Second) // more than the end would wait
		r.wants(300*20, 0)
		for _, id := range ids {
			for n, f := range s.of(id) {
				if f.Method != strconv.Itoa(n) {
					t.Fatalf("frame %d is that of message %s", n, f.Method)
				}
			}
		}
	})
}

func TestOneSessionCannotFillTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r := start(t, s, func(c *record.Config) { c.QueueCount, c.QueueBytes = 100, 4000 })
		loud, large, quiet := newID(t), newID(t), newID(t)
		for range 200 {
			r.Record(loud, record.Entry{Method: "m"})
			r.Record(large, record.Entry{Method: "m", Payload: bytes.Repeat([]byte("1"), 300)})
		}
		r.Record(quiet, entry("ping"))
		r.Record(quiet, record.Entry{Method: "huge", Size: 5000, Payload: bytes.Repeat([]byte("1"), 5000)}) // only what it says is too much
		r.wants(25+3+2, 400-25-3)
		if got := s.of(quiet); len(got) != 2 || got[1].Payload != nil || got[1].Size != 5000 {
			t.Errorf("of the other session: %+v", got)
		}
		if !strings.Contains(r.log.String(), "faster than they could be recorded") {
			t.Errorf("nothing is said about it: %s", &r.log)
		}
	})
}

func TestWhatIsBeingWrittenStillFillsTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &store{do: hangs}, func(c *record.Config) { c.QueueCount = 4 })
		for range 4 {
			r.Record(newID(t), entry("m"))
		}
		time.Sleep(500 * time.Millisecond) // they are on their way
		r.Record(newID(t), entry("m"))
		if got := r.Dropped(); got != 1 {
			t.Errorf("%d dropped while all places are taken, want 1", got)
		}
		time.Sleep(time.Second) // they are given up
		r.Record(newID(t), entry("m"))
		if got := r.Dropped(); got != 5 {
			t.Errorf("%d dropped afterwards, want 5", got)
		}
	})
}

func TestRecordingGoesOnWhenTheStoreIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var isAway atomic.Bool
		isAway.Store(true)
		s := &store{do: func(context.Context, cluster.ID, []cluster.Frame) error {
			if isAway.Load() {
				return cluster.ErrStoreUnavailable
			}
			return nil
		}}
		r, id := start(t, s), newID(t)
		r.Record(id, entry("lost"))
		time.Sleep(time.Second)
		isAway.Store(false)
		r.Record(id, entry("kept"))
		r.wants(1, 1)
		if got := s.of(id); len(got) != 1 || got[0].Method != "kept" {
			t.Errorf("recorded: %+v", got)
		}
		if log := r.log.String(); !strings.Contains(log, "recorded again") {
			t.Errorf("the log says nothing about it: %s", log)
		}
	})
}

func TestWhatIsRecordedLastIsWrittenAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		r, id := start(t, s), newID(t)
		for range 250 {
			r.Record(id, entry("m"))
		}
		r.wants(250, 0)
	})
}

func TestAPanicLosesNoMoreThanWhatItWasAbout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bad, good := newID(t), newID(t)
		s := &store{do: func(_ context.Context, id cluster.ID, _ []cluster.Frame) error {
			if id == bad {
				panic("of the store")
			}
			return nil
		}}
		r := start(t, s)
		for range 3 {
			r.Record(bad, entry("m"))
			r.Record(good, entry("m"))
			time.Sleep(time.Second)
		}
		r.wants(3, 3)
		if log := r.log.String(); !strings.Contains(log, "recording panicked") || !strings.Contains(log, "stack=") {
			t.Errorf("the log says nothing about it: %s", log)
		}
	})
}

func TestASessionWhoseRecordIsGoneIsNoFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{do: func(context.Context, cluster.ID, []cluster.Frame) error {
			return fmt.Errorf("appending: %w", cluster.ErrNotFound)
		}}
		r := start(t, s)
		r.Record(newID(t), entry("m"))
		r.wants(0, 1)
		if r.log.Len() > 0 {
			t.Errorf("it is logged: %s", &r.log)
		}
	})
}

func TestCallsOfTheStoreAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var errs []error
		s := &store{do: func(_ context.Context, _ cluster.ID, frames []cluster.Frame) error {
			size := 0
			for _, f := range frames {
				size += len(f.Payload)
			}
			if len(frames) > 100 || len(frames) > 1 && size > 256<<10 {
				errs = append(errs, fmt.Errorf("%d frames of %d bytes at once", len(frames), size))
			}
			return nil
		}}
		r, id := start(t, s), newID(t)
		for n := range 400 {
			size := 2
			if n%10 == 0 {
				size = 100 << 10
			}
			if n == 15 {
				size = 900 << 10
			}
			r.Record(id, record.Entry{Method: "m", Payload: []byte(`"` + strings.Repeat("p", size-2) + `"`)})
			if n%100 == 99 {
				time.Sleep(time.Second)
			}
		}
		r.wants(400, 0)
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsRecorded(t *testing.T) {
	t.Parallel()
	rules, err := record.ParseRules([]string{"params.arguments.pin"})
	if err != nil {
		t.Fatal(err)
	}
	const call = `{"jsonrpc":"2.0","id":"7","method":"tools/call","params":{"arguments":{"pin":1234,"x":"its-a-secret"}}}`
	const clean = `{"jsonrpc":"2.0","id":"7","method":"tools/call","params":{"arguments":{"pin":"[redacted]","x":"[redacted]"}}}`
	known := record.Entry{Direction: cluster.FromClient, Method: "tools/call", MessageID: mcp.ID(`"7"`), Size: 99, Payload: []byte(call), Secrets: []string{"a-secret"}}
	unknown := known
	unknown.Method, unknown.MessageID = "", ""
	answer := record.Entry{Direction: cluster.FromProxy, MessageID: "7", Status: 503, Latency: time.Second, Size: 5}
	frame := cluster.Frame{Direction: cluster.FromClient, Method: "tools/call", MessageID: `"7"`, Size: 99, Replica: "a/1"}
	full := frame
	full.Payload = []byte(clean)
	for name, c := range map[string]struct {
		mode record.Mode
		in   record.Entry
		want cluster.Frame
	}{
		"metadata":                        {record.Metadata, known, frame},
		"metadata that must be looked up": {record.Metadata, unknown, frame},
		"full":                            {record.Full, known, full},
		"full that must be looked up":     {record.Full, unknown, full},
		"an answer": {record.Full, answer, cluster.Frame{
			Direction: cluster.FromProxy, MessageID: "7", Status: 503, Latency: time.Second, Size: 5, Replica: "a/1",
		}},
		"a batch": {
			record.Metadata,
			record.Entry{Payload: []byte(`[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","method":"b"}]`)},
			cluster.Frame{Method: "(batch)", Replica: "a/1"},
		},
		"malformed JSON": {
			record.Full, record.Entry{Size: 3, Payload: []byte(`{"p`)}, cluster.Frame{Size: 3, Replica: "a/1"},
		},
		"what is not UTF-8": {
			record.Full, record.Entry{Size: 3, Payload: []byte("\"\xff\"")}, cluster.Frame{Size: 3, Replica: "a/1"},
		},
		"JSON that is no message": {
			record.Full, record.Entry{Size: 2, Payload: []byte(`17`)}, cluster.Frame{Size: 2, Replica: "a/1", Payload: []byte(`17`)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &store{}
				r := start(t, s, func(cfg *record.Config) { cfg.Mode, cfg.Redact = c.mode, rules })
				id := newID(t)
				r.Record(id, c.in)
				time.Sleep(time.Second)
				got := s.of(id)
				if len(got) != 1 {
					t.Fatalf("%d frames", len(got))
				}
				if got[0].Age != 100*time.Millisecond {
					t.Errorf("it was written %v after the message, by what the store is told", got[0].Age)
				}
				got[0].Age = 0
				if diff := cmp.Diff(c.want, got[0]); diff != "" {
					t.Errorf("frame (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestRecordingThatIsOffCostsNothing(t *testing.T) {
	r := record.New(record.Config{Store: &store{}})
	if r != nil {
		t.Fatal("there is a recorder")
	}
	id, e := newID(t), entry("m")
	if n := testing.AllocsPerRun(100, func() { r.Record(id, e) }); n > 0 || r.MaxPayload() != 0 {
		t.Errorf("%v allocations, payloads of up to %d bytes", n, r.MaxPayload())
	}
}

// BenchmarkRecord is what one message costs its request; what is done with it later, on another processor, is not in it but for what
// both need of memory.
func BenchmarkRecord(b *testing.B) {
	for _, mode := range []record.Mode{record.Off, record.Metadata, record.Full} {
		b.Run(string(mode), func(b *testing.B) {
			rules, err := record.ParseRules(record.DefaultRedact())
			if err != nil {
				b.Fatal(err)
			}
			r := record.New(record.Config{
				Store: &store{do: func(context.Context, cluster.ID, []cluster.Frame) error { return cluster.ErrNotFound }},
				Mode:  mode, Redact: rules, QueueCount: 1 << 30, QueueBytes: 1 << 40, // nothing is dropped for want of room
			})
			ctx, stop := context.WithCancel(b.Context())
			var running sync.WaitGroup
			if r != nil {
				running.Go(func() { _ = r.Run(ctx) })
			}
			id, e := uuid.New(), entry("tools/call")
			b.ReportAllocs()
			for b.Loop() {
				r.Record(id, e)
			}
			stop()
			running.Wait()
		})
	}
}
