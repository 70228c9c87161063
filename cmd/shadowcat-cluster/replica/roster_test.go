package replica

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// neighbourhood is what one replica sees of others, which the test makes.
type neighbourhood struct {
	*roster

	t   *testing.T
	log bytes.Buffer
	n   int // other replicas that disagree, as it was told last
}

func newNeighbourhood(t *testing.T) *neighbourhood {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.StoreTimeout = 10 * time.Second
	store, err := redisstore.Open(redisstore.EmbeddedURL, redisstore.Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	h := &neighbourhood{t: t, n: -1}
	h.roster = &roster{
		store: store, timeout: cfg.StoreTimeout, log: slog.New(slog.NewTextHandler(&h.log, nil)), incarnation: "a/1",
		about: func() redisstore.About {
			return redisstore.About{Limits: cluster.SharedLimits{"max_sessions": "10", "lease": "3s"}}
		},
		disagreeing: func(n int) { h.n = n },
	}
	return h
}

func (h *neighbourhood) lives(incarnation string, limits cluster.SharedLimits) {
	h.t.Helper()
	if err := h.store.Beat(h.t.Context(), incarnation); err != nil {
		h.t.Fatal(err)
	}
	if limits == nil {
		return
	}
	if err := h.store.Tell(h.t.Context(), incarnation, redisstore.About{Limits: limits}); err != nil {
		h.t.Fatal(err)
	}
}

// looks takes one look and returns the warnings of that.
func (h *neighbourhood) looks() []string {
	h.t.Helper()
	h.log.Reset()
	h.look(h.t.Context())
	return slices.Collect(strings.Lines(h.log.String()))
}

func TestReplicasThatDisagreeAboutLimitsAreNamedOnce(t *testing.T) {
	t.Parallel()
	h := newNeighbourhood(t)
	h.lives("a/1", cluster.SharedLimits{"max_sessions": "10", "lease": "3s"})
	h.lives("b/1", cluster.SharedLimits{"max_sessions": "10", "lease": "3s"})
	h.lives("older/1", nil)
	if said := h.looks(); len(said) > 0 || h.n != 0 {
		t.Errorf("all agree: %q, %d", said, h.n)
	}
	h.lives("c/1", cluster.SharedLimits{"max_sessions": "5", "lease": "3s", "of_a_later_version": "1"})
	said := h.looks()
	if len(said) != 1 || !strings.Contains(said[0], "WARN") || !strings.Contains(said[0], "[c/1]") || !strings.Contains(said[0], "[max_sessions]") || h.n != 1 {
		t.Errorf("one disagrees: %q, %d", said, h.n)
	}
	if said := h.looks(); len(said) > 0 || h.n != 1 {
		t.Errorf("the same one again: %q, %d", said, h.n)
	}
	h.lives("d/1", cluster.SharedLimits{"max_sessions": "5", "lease": "4s"})
	if said := h.looks(); len(said) != 1 || !strings.Contains(said[0], "[c/1 d/1]") || !strings.Contains(said[0], "[lease max_sessions]") || h.n != 2 {
		t.Errorf("another one: %q, %d", said, h.n)
	}
	for _, gone := range []string{"c/1", "d/1"} {
		if err := h.store.Leave(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
	}
	if said := h.looks(); len(said) > 0 || h.n != 0 {
		t.Errorf("they are gone: %q, %d", said, h.n)
	}
}

func TestAReplicaWithTheSameIDIsNamedAtTheSecondLook(t *testing.T) {
	t.Parallel()
	h := newNeighbourhood(t)
	h.lives("a/1", nil)
	h.lives("a/2", nil)
	h.lives("ab/1", nil)
	if said := h.looks(); len(said) > 0 {
		t.Errorf("it may have died just now: %q", said)
	}
	if said := h.looks(); len(said) != 1 || !strings.Contains(said[0], "WARN") || !strings.Contains(said[0], "[a/2]") {
		t.Errorf("it lives: %q", said)
	}
	if said := h.looks(); len(said) > 0 {
		t.Errorf("once more: %q", said)
	}
}
