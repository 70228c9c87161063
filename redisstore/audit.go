package redisstore

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// auditQueue is how many audit records wait for the store at most; more are dropped, and counted.
	auditQueue = 10_000
	// auditBatch is how many are written at once, auditPause how long they are collected for.
	auditBatch = 200
	auditPause = 100 * time.Millisecond
	// auditTimeout bounds each write.
	auditTimeout = 2 * time.Second
)

// AuditStream writes audit records to a stream in the store that is capped, the oldest go first. It is a [cluster.Auditor]: a
// record waits in a bounded queue, and is dropped when that is full or the store is away. The log has it all the same.
type AuditStream struct {
	store     *Store
	most      int
	log       *slog.Logger
	queue     chan cluster.Audit
	dropped   atomic.Int64
	complaint *cluster.Complaint
}

// AuditRecords is how many records the audit stream keeps, about: what Options.AuditStream says, or, after [Store.Adopt], the replicas.
// 0: there is no stream.
func (s *Store) AuditRecords() int { return s.auditStream }

// NewAuditStream returns what writes to the stream, of at most about [Store.AuditRecords] records, while [AuditStream.Run] runs. There
// must be one. Faults in an outage, of which whoever runs the program is told anyway, are logged at debug; inOutage may be nil.
func (s *Store) NewAuditStream(inOutage cluster.InOutage) *AuditStream {
	return &AuditStream{
		store: s, most: s.auditStream, log: s.log, queue: make(chan cluster.Audit, auditQueue), complaint: cluster.NewComplaint(inOutage),
	}
}

// Audited implements [cluster.Auditor].
func (a *AuditStream) Audited(record cluster.Audit) {
	select {
	case a.queue <- record:
	default:
		a.dropped.Add(1)
	}
}

// Dropped is how many records were not written.
func (a *AuditStream) Dropped() int64 { return a.dropped.Load() }

// Run writes records until ctx is done, and then those that are waiting. The caller owns the goroutine.
func (a *AuditStream) Run(ctx context.Context) error {
	tick := time.NewTicker(auditPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.writeAll(ctx)
		case <-ctx.Done():
			a.writeAll(ctx)
			a.dropped.Add(int64(len(a.queue))) // what a fault has left
			return nil
		}
	}
}

// writeAll writes what is waiting, as long as that works.
func (a *AuditStream) writeAll(ctx context.Context) {
	for len(a.queue) > 0 {
		if !a.write(ctx) {
			return
		}
	}
}

// write writes one batch, and reports whether that worked.
func (a *AuditStream) write(ctx context.Context) bool {
	// Not to be broken off: what is taken out of the queue must be written.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	pipe := a.store.client.Pipeline()
	n := min(len(a.queue), auditBatch)
	for range n {
		record := <-a.queue
		_ = pipe.Process(ctx, once{Cmd: redis.NewCmd(ctx, a.command(record)...)}) // queues it
	}
	sent := time.Now()
	if _, err := pipe.Exec(ctx); err != nil {
		a.dropped.Add(int64(n))
		if level, isNews := a.complaint.Failed(unavailable(err), sent); isNews {
			a.log.Log(ctx, level, "audit records cannot be written to the store; the log has them", "error", err)
		}
		return false
	}
	if level, isNews := a.complaint.Worked(); isNews {
		a.log.Log(ctx, level, "audit records are written to the store again", "dropped", a.Dropped())
	}
	return true
}

func (a *AuditStream) command(r cluster.Audit) []any {
	return []any{
		"xadd", auditKey(a.store.prefix), "maxlen", "~", a.most, "*",
		"at", r.At.UnixMilli(), "action", string(r.Action), "session", r.Session.String(), "principal", string(r.Principal),
		"upstream", r.Upstream, "actor", string(r.Actor), "by", r.By, "reason", r.Reason,
	}
}
