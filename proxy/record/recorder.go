package record

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// Mode is how much is recorded.
type Mode string

// The modes.
const (
	Off      Mode = "off"
	Metadata Mode = "metadata" // what is known about each message
	Full     Mode = "full"     // and the message, redacted
)

// Defaults of Config.
const (
	DefaultQueueCount = 10_000
	DefaultQueueBytes = 16 << 20
)

const (
	// interval is how long entries are collected for.
	interval = 100 * time.Millisecond
	// lanes is how many sessions are written at the same time: the way to the store and back is most of the time that it takes.
	lanes = 8
	// batchCount and batchBytes bound one call of the store.
	batchCount = 100
	batchBytes = 256 << 10
	// callTimeout bounds one call, endTimeout all those of the end.
	callTimeout = time.Second
	endTimeout  = time.Second
	// complainEvery is how often a queue that is full is logged at most.
	complainEvery = time.Minute
)

// Observer is told what became of frames. Its methods are called concurrently, FramesDropped on the way of requests, too; they must
// return at once.
type Observer interface {
	FramesRecorded(n int) // were stored
	FramesDropped(n int)  // were not, and will not be
}

// Config configures a Recorder. Store is required.
type Config struct {
	Store cluster.FrameStore
	// Mode default: [Off].
	Mode Mode
	// Redact says what is kept out of payloads. The zero value: nothing.
	Redact Rules
	// RedactHeaders says of which headers the values are kept out of payloads, too.
	RedactHeaders Headers
	// Replica is the incarnation that records.
	Replica string
	// MaxPayload is the longest payload that is recorded, in bytes; of longer ones only what is known about them. Default 1 MiB.
	MaxPayload int
	// QueueCount and QueueBytes bound what waits for the store, as frames and as bytes of messages; a quarter of it is for one session at
	// most. Defaults 10,000 and 16 MiB.
	QueueCount int
	QueueBytes int

	// InOutage tells which faults of the store are an outage, of which whoever runs the replica is told without the Recorder: they are
	// logged at debug. Default: none are.
	InOutage cluster.InOutage
	// Logger default: discards.
	Logger *slog.Logger
	// Observer default: none.
	Observer Observer
}

// Entry is one message to be recorded.
type Entry struct {
	Direction cluster.Direction
	// Method and MessageID may be left empty when Payload is there: it is looked at then.
	Method    string
	MessageID mcp.ID
	Size      int           // in bytes
	Status    int           // the HTTP status of an answer, else 0
	Latency   time.Duration // of an answer, else 0
	// Payload is the message, when it may be recorded; nil otherwise. It must not be changed any more.
	Payload []byte
	// Secrets must not be in the recording, whatever the rules say.
	Secrets []string
}

// Recorder records messages. A nil one records nothing.
type Recorder struct {
	cfg     Config
	log     *slog.Logger
	queue   queue
	dropped atomic.Int64

	complaint  *cluster.Complaint // that the store does not take messages
	refused    atomic.Int64       // entries that found no room
	complained time.Time          // when that was last logged; of Run alone
}

// New returns a recorder, nil for [Off]. It writes while [Recorder.Run] runs.
func New(cfg Config) *Recorder {
	if cfg.Mode == Off || cfg.Mode == "" {
		return nil
	}
	cfg.QueueCount = cmp.Or(cfg.QueueCount, DefaultQueueCount)
	cfg.QueueBytes = cmp.Or(cfg.QueueBytes, DefaultQueueBytes)
	cfg.MaxPayload = min(cmp.Or(cfg.MaxPayload, 1<<20), cfg.QueueBytes/ofSession)
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	return &Recorder{
		cfg: cfg, log: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)), queue: queue{maxCount: cfg.QueueCount, maxBytes: cfg.QueueBytes},
		complaint: cluster.NewComplaint(cfg.InOutage),
	}
}

type noObserver struct{}

func (noObserver) FramesRecorded(int) {}
func (noObserver) FramesDropped(int)  {}

// MaxPayload is the longest payload worth keeping for [Recorder.Record], in bytes; 0 when none is recorded.
func (r *Recorder) MaxPayload() int {
	if r == nil || r.cfg.Mode != Full {
		return 0
	}
	return r.cfg.MaxPayload
}

// AppendSecrets appends to secrets what a header holds that must not be in payloads, for [Entry]. When none are recorded, it does nothing.
func (r *Recorder) AppendSecrets(secrets []string, h http.Header) []string {
	if r.MaxPayload() == 0 {
		return secrets
	}
	return r.cfg.RedactHeaders.AppendSecrets(secrets, h)
}

// Record records a message of a session that exists, some time later. It never waits, and may be called from any goroutine.
func (r *Recorder) Record(session cluster.ID, e Entry) {
	if r == nil {
		return
	}
	isKnown := e.Method != "" || e.MessageID != ""
	if len(e.Payload) > r.cfg.MaxPayload || isKnown && r.cfg.Mode != Full {
		e.Payload = nil
	}
	if !r.queue.add(session, queued{e, time.Now()}) {
		r.refused.Add(1)
		r.drop(1)
	}
}

// Dropped is how many messages were not recorded.
func (r *Recorder) Dropped() int64 { return r.dropped.Load() }

func (r *Recorder) drop(n int) {
	r.dropped.Add(int64(n))
	r.cfg.Observer.FramesDropped(n)
}

// Run writes what is recorded until ctx is done, and then what is waiting, for a second at most. The caller owns the goroutine.
func (r *Recorder) Run(ctx context.Context) error {
	// What is taken out of the queue is written, or given up, but not broken off by the end of ctx at once.
	writing, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	unhook := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(endTimeout, giveUp)
		context.AfterFunc(writing, func() { timer.Stop() })
	})
	defer unhook()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.writeAll(writing)
			r.complain(time.Now())
		case <-ctx.Done():
			r.writeAll(writing)
			r.complain(time.Now())
			return nil
		}
	}
}

// complain logs that the queue was full.
func (r *Recorder) complain(now time.Time) {
	if now.Sub(r.complained) < complainEvery {
		return
	}
	if refused := r.refused.Swap(0); refused > 0 {
		r.complained = now
		r.log.Warn("messages came faster than they could be recorded; some are missing in the recording", "dropped", refused)
	}
}

// writeAll writes what is waiting, several sessions at a time.
func (r *Recorder) writeAll(ctx context.Context) {
	backlogs := r.queue.take()
	var next atomic.Int64
	var running sync.WaitGroup
	for range min(lanes, len(backlogs)) {
		running.Go(func() {
			for i := int(next.Add(1)); i <= len(backlogs); i = int(next.Add(1)) {
				r.write(ctx, backlogs[i-1])
			}
		})
	}
	running.Wait()
}

// write writes what one session has waiting. When that fails, it is given up: what was not written once would soon be too much.
func (r *Recorder) write(ctx context.Context, b *backlog) {
	rest := b.entries
	defer func() {
		if fault := recover(); fault != nil {
			r.log.Error("recording panicked; some messages are missing in the recording", "session", b.session, "panic", fault, "stack", string(debug.Stack()))
		}
		if len(rest) > 0 {
			r.queue.done(rest)
			r.drop(len(rest))
		}
	}()
	for len(rest) > 0 && ctx.Err() == nil {
		frames := r.batch(rest)
		for i := range frames { // as late as can be: the store takes them to be as old as this from when it gets them
			frames[i].Age = time.Since(rest[i].at)
		}
		if !r.append(ctx, b.session, frames) {
			return
		}
		r.queue.done(rest[:len(frames)])
		rest = rest[len(frames):]
		r.cfg.Observer.FramesRecorded(len(frames))
	}
}

// append has one batch stored, and reports whether it was.
func (r *Recorder) append(ctx context.Context, session cluster.ID, frames []cluster.Frame) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	sent := time.Now()
	err := r.cfg.Store.AppendFrames(ctx, session, frames)
	if err == nil {
		if level, isNews := r.complaint.Worked(); isNews {
			r.log.Log(ctx, level, "messages are recorded again", "dropped", r.Dropped())
		}
		return true
	}
	if errors.Is(err, cluster.ErrNotFound) { // its record is purged, and so is its recording
		return false
	}
	if level, isNews := r.complaint.Failed(err, sent); isNews {
		r.log.Log(ctx, level, "messages cannot be recorded: the store does not take them", "session", session, "error", err)
	}
	return false
}

// batch makes frames of the first entries, as many as one call takes.
func (r *Recorder) batch(entries []queued) []cluster.Frame {
	frames := make([]cluster.Frame, 0, min(len(entries), batchCount))
	size := 0
	for _, e := range entries {
		if size += len(e.Payload); len(frames) == batchCount || len(frames) > 0 && size > batchBytes {
			break
		}
		frames = append(frames, r.frame(e))
	}
	return frames
}

// frame makes a frame of an entry, all but its age.
func (r *Recorder) frame(e queued) cluster.Frame {
	f := cluster.Frame{
		Direction: e.Direction, Method: e.Method, MessageID: string(e.MessageID),
		Size: e.Size, Status: e.Status, Latency: e.Latency, Replica: r.cfg.Replica,
	}
	if f.Method == "" && f.MessageID == "" && len(e.Payload) > 0 {
		if msg, err := mcp.Peek(e.Payload); err == nil {
			f.Method, f.MessageID = Method(msg), string(msg.ID)
		}
	}
	if r.cfg.Mode == Full && len(e.Payload) > 0 {
		f.Payload, _ = r.cfg.Redact.Redact(e.Payload, e.Secrets...)
	}
	return f
}

// Method is what a recording calls a message: its method, empty for an answer.
func Method(msg mcp.Message) string {
	if msg.Kind == mcp.KindBatch {
		return cluster.MethodBatch
	}
	return msg.Method
}
