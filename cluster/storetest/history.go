package storetest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// historyIsLinearizable lets workers create, activate, lease, terminate and count sessions at a small cap, all at once, and
// looks for an order of these operations, one after the other, that explains what each was told. All sessions are of one
// partition: partitions have nothing to do with each other.
func historyIsLinearizable(t *testing.T, s *suite) {
	const most, workers, each = 3, 4, 15
	fresh := s.tokensOfOnePartition(workers * each)
	s.open(func(c *cluster.Config) { c.MaxSessions, c.RequestRate = most*max(s.b.Partitions, 1), 0 })
	var (
		mu     sync.Mutex
		tokens []cluster.Token
		events []porcupine.Operation
		wg     sync.WaitGroup
		begin  = time.Now()
	)
	seed := rand.Uint64() //nolint:gosec // a test's choice of operations
	t.Logf("seed %d", seed)
	for worker := range workers {
		random := rand.New(rand.NewPCG(seed, uint64(worker))) //nolint:gosec // as above
		wg.Go(func() {
			for range each {
				mu.Lock()
				op := operation{kind: "create"}
				if len(tokens) > 0 && random.IntN(4) > 0 {
					recent := tokens[max(0, len(tokens)-most-1):]
					op.kind = []string{"activate", "lease", "terminate", "count"}[random.IntN(4)]
					op.token = recent[random.IntN(len(recent))]
				} else {
					op.token, fresh = fresh[0], fresh[1:]
				}
				mu.Unlock()
				called := time.Since(begin)
				result := s.perform(op)
				returned := time.Since(begin)
				mu.Lock()
				events = append(events, porcupine.Operation{
					ClientId: worker, Input: op, Output: result, Call: called.Nanoseconds(), Return: returned.Nanoseconds(),
				})
				if op.kind == "create" {
					tokens = append(tokens, op.token)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if porcupine.CheckOperationsTimeout(sessionsModel(most), events, time.Minute) != porcupine.Ok {
		slices.SortFunc(events, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		for _, e := range events {
			op, _ := e.Input.(operation)
			t.Logf("%9d-%9d worker %d: %s %s: %v", e.Call, e.Return, e.ClientId, op.kind, op.token, e.Output)
		}
		t.Error("no order of these operations explains their results")
	}
}

// tokensOfOnePartition draws tokens whose sessions share a partition: where there is room for one session in each, they are
// those that end each other.
func (s *suite) tokensOfOnePartition(n int) []cluster.Token {
	s.t.Helper()
	tokens := []cluster.Token{s.token()}
	if s.b.Partitions > 1 {
		s.open(func(c *cluster.Config) { c.MaxSessions = s.b.Partitions })
		if _, err := s.store.Create(s.t.Context(), creation(tokens[0])); err != nil {
			s.t.Fatalf("Create: %v", err)
		}
	}
	for len(tokens) < n {
		token, last := s.token(), tokens[len(tokens)-1]
		if s.b.Partitions > 1 {
			created, err := s.store.Create(s.t.Context(), creation(token))
			if err != nil {
				s.t.Fatalf("Create: %v", err)
			}
			if !slices.ContainsFunc(created.Ended, func(ended cluster.Session) bool { return ended.ID == last.ID }) {
				continue
			}
		}
		tokens = append(tokens, token)
	}
	return tokens
}

type operation struct {
	kind  string
	token cluster.Token
}

// perform runs an operation and returns how the store answered: done, gone, illegal, or a number of live sessions.
func (s *suite) perform(op operation) string {
	ctx, k := s.t.Context(), known{token: op.token}
	k.ID = op.token.ID
	var err error
	switch op.kind {
	case "create":
		_, err = s.store.Create(ctx, creation(op.token))
	case "activate":
		_, err = s.store.Update(ctx, cluster.Change{ID: k.ID, ExpectedVersion: 1, Writer: "once"})
	case "lease":
		_, err = s.store.Lease(ctx, leaseCall(k, 1))
	case "terminate":
		_, err = s.store.Terminate(ctx, k.ID, cluster.StatusTerminated)
	case "count":
		stats, err := s.store.Stats(ctx)
		if err != nil {
			return err.Error()
		}
		return strconv.FormatInt(stats.ByStatus[cluster.StatusInitializing]+stats.ByStatus[cluster.StatusActive], 10)
	}
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, cluster.ErrNotFound):
		return "gone"
	case errors.Is(err, cluster.ErrIllegalTransition), errors.Is(err, cluster.ErrConflict):
		return "illegal"
	default:
		return err.Error() // no state explains that
	}
}

// sessionsModel is the store, one operation at a time: which sessions are initializing or active. It does not know
// which one a create evicts, so it follows every possibility.
func sessionsModel(most int) porcupine.Model {
	type sessions = map[cluster.ID]cluster.Status
	nondeterministic := porcupine.NondeterministicModel{
		Init: func() []any { return []any{sessions{}} },
		Step: func(state, input, output any) []any {
			before, isState := state.(sessions)
			op, isOperation := input.(operation)
			if !isState || !isOperation {
				return nil
			}
			with := func(id cluster.ID, status cluster.Status) sessions {
				after := maps.Clone(before)
				after[id] = status
				return after
			}
			id, status := op.token.ID, before[op.token.ID]
			if op.kind == "count" && output == strconv.Itoa(len(before)) {
				return []any{before}
			}
			switch op.kind + " " + output.(string) { //nolint:errcheck // perform returns nothing else
			case "create done":
				var after []any
				for victim := range before {
					if len(before) == most {
						next := with(id, cluster.StatusInitializing)
						delete(next, victim)
						after = append(after, next)
					}
				}
				if len(before) < most {
					after = append(after, with(id, cluster.StatusInitializing))
				}
				return after
			case "activate done":
				if status.Live() { // repeated by the same writer, it is done as well
					return []any{with(id, cluster.StatusActive)}
				}
			case "lease done":
				if status == cluster.StatusActive {
					return []any{before}
				}
			case "lease gone":
				if status != cluster.StatusActive {
					return []any{before}
				}
			case "terminate done":
				if status.Live() {
					after := maps.Clone(before)
					delete(after, id)
					return []any{after}
				}
			case "activate illegal", "terminate illegal", "activate gone", "terminate gone": // gone: purged already
				if !status.Live() {
					return []any{before}
				}
			}
			return nil
		},
		Equal: func(a, b any) bool {
			first, okA := a.(sessions)
			second, okB := b.(sessions)
			return okA && okB && maps.Equal(first, second)
		},
		DescribeState: func(state any) string {
			var all []string
			if current, ok := state.(sessions); ok {
				for id, status := range current {
					all = append(all, id.String()+" "+string(status))
				}
			}
			slices.Sort(all)
			return strings.Join(all, ", ")
		},
	}
	return nondeterministic.ToModel()
}
