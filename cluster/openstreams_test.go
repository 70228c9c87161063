package cluster_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// listen opens a stream that must be admitted, and returns its lease.
func (w *world) listen(m *cluster.Manager, token cluster.Token, kind cluster.StreamKind) *cluster.Lease {
	w.t.Helper()
	l, err := w.openStream(m, token, kind)
	if err != nil {
		w.t.Fatalf("opening a stream: %v", err)
	}
	w.t.Cleanup(l.Release)
	return l
}

// openStream opens a stream; when it is refused its lease is released.
func (w *world) openStream(m *cluster.Manager, token cluster.Token, kind cluster.StreamKind) (*cluster.Lease, error) {
	w.t.Helper()
	l, err := m.Lease(w.t.Context(), token, cluster.Use{Upstream: "u", Stream: true})
	if err != nil {
		w.t.Fatalf("leasing for a stream: %v", err)
	}
	if err := m.OpenStream(w.t.Context(), l, kind); err != nil {
		l.Release()
		return nil, err
	}
	return l, nil
}

func (w *world) wantStreamsLimited(m *cluster.Manager, token cluster.Token, kind cluster.StreamKind, setting string) {
	w.t.Helper()
	_, err := w.openStream(m, token, kind)
	limit, ok := errors.AsType[*cluster.LimitError](err)
	if !ok || !errors.Is(err, cluster.ErrStreamsLimited) || limit.Limit != setting || limit.RetryAfter <= 0 {
		w.t.Errorf("one stream too many: %v, want ErrStreamsLimited by %s", err, setting)
	}
}

func TestTheCapOfStreamsIsExactOverAllReplicas(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.MaxStreams = 3 }, func(_ *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		c, _ := w.replica()
		_, token := w.session(a)
		first := w.listen(a, token, cluster.StreamListening)
		w.listen(b, token, cluster.StreamListening)
		w.listen(c, token, cluster.StreamListening)
		for _, m := range []*cluster.Manager{a, b, c} {
			w.wantStreamsLimited(m, token, cluster.StreamListening, "max_streams")
		}
		w.pass(cluster.ListenerSuperseded / 2) // however silent they are
		w.wantStreamsLimited(b, token, cluster.StreamListening, "max_streams")
		first.Release()
		first.Release() // once is enough
		w.pass(time.Millisecond)
		w.listen(b, token, cluster.StreamListening)
		w.wantStreamsLimited(a, token, cluster.StreamListening, "max_streams")
	})
}

// As many answers may have to be resumed at once as were waited for.
func TestResumedAnswersHaveTheCapOfRequests(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.MaxStreams, c.MaxPending = 1, 2 }, func(_ *testing.T, w *world) {
		a, _ := w.replica()
		b, _ := w.replica()
		_, token := w.session(a)
		w.listen(a, token, cluster.StreamListening)
		w.listen(a, token, cluster.StreamResumed)
		w.listen(b, token, cluster.StreamResumed)
		w.wantStreamsLimited(b, token, cluster.StreamResumed, "max_pending")
		w.wantStreamsLimited(b, token, cluster.StreamListening, "max_streams")
	})
}

func TestWithoutACapThereAreAnyNumberOfStreams(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.MaxStreams = 0 }, func(_ *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		for range 100 {
			w.listen(m, token, cluster.StreamListening)
		}
	})
}

// What a replica had open that has died is nobody's, once the others know.
func TestStreamsOfADeadReplicaDoNotCount(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.MaxStreams = 2 }, func(_ *testing.T, w *world) {
		a, _ := w.replica()
		b, kill := w.replica()
		_, token := w.session(a)
		w.listen(a, token, cluster.StreamListening)
		w.listen(b, token, cluster.StreamListening)
		w.wantStreamsLimited(a, token, cluster.StreamListening, "max_streams")
		kill()
		w.pass(cluster.ListenerSuperseded * 3 / 4)
		w.listen(a, token, cluster.StreamListening)
		w.wantStreamsLimited(a, token, cluster.StreamListening, "max_streams")
	})
}

// What replicas left that died while nobody could know keeps no client out: it comes back with one stream at a time.
func TestStreamsLeftInAnOutageKeepNoListenerOut(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.MaxStreams = 2 }, func(_ *testing.T, w *world) {
		m, _ := w.replica()
		_, token := w.session(m)
		dying, kill := w.replica()
		w.listen(dying, token, cluster.StreamListening)
		w.listen(dying, token, cluster.StreamListening)
		w.wantStreamsLimited(m, token, cluster.StreamListening, "max_streams")
		w.store.set(true, false)
		kill()
		w.pass(cluster.ListenerSuperseded)
		w.store.set(false, false)
		w.listen(m, token, cluster.StreamListening) // nobody is taken for dead yet
		w.listen(m, token, cluster.StreamListening)
		w.wantStreamsLimited(m, token, cluster.StreamListening, "max_streams")
	})
}

// While the store is away a replica counts for itself, and what was closed meanwhile is told afterwards.
func TestStreamsAreCountedAloneWhileTheStoreIsAway(t *testing.T) {
	inWorld(t, func(c *cluster.Config) { c.MaxStreams, c.MaxPending = 2, 3 }, func(_ *testing.T, w *world) {
		m, _ := w.replica()
		other, _ := w.replica()
		_, token := w.session(m)
		before := w.listen(m, token, cluster.StreamListening)
		w.store.set(true, false)
		w.listen(m, token, cluster.StreamListening).Release()
		before.Release()
		during := w.listen(m, token, cluster.StreamListening)
		w.listen(m, token, cluster.StreamListening)
		w.wantStreamsLimited(m, token, cluster.StreamListening, "max_streams")
		for range 3 { // which have a limit of their own
			w.listen(m, token, cluster.StreamResumed)
		}
		w.wantStreamsLimited(m, token, cluster.StreamResumed, "max_pending")
		during.Release()
		during = w.listen(m, token, cluster.StreamListening)
		w.store.set(false, false)
		w.pass(3 * w.cfg.ReportInterval)
		during.Release()
		w.listen(other, token, cluster.StreamListening)
		w.listen(other, token, cluster.StreamListening)
		w.wantStreamsLimited(other, token, cluster.StreamListening, "max_streams")
	})
}
