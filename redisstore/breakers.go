package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// minBreakers is into how many parts a Redis Cluster is cut at least: so a node that is down keeps nobody from the keys of the
// others.
const minBreakers = 16

// noticed is how long it takes at most until an outage fails some call of a replica that has nothing else to do: it says every
// second that it lives.
const noticed = time.Second

// breakers are the parts of a store that fail by themselves. A single server is one, whoever holds it at the moment; a Redis
// Cluster is cut by slots, of which each node has a range. The zero value has none.
type breakers struct {
	parts []*breaker
	trips atomic.Int64
	// troubledUntil is until when some part's leeway may be more than none, in ns since made: for ever while one is failing.
	troubledUntil atomic.Int64
	made          time.Time

	mu       sync.Mutex
	probes   sync.WaitGroup
	ctx      context.Context // of the probes
	stop     context.CancelFunc
	isClosed bool
}

func (s *Store) makeBreakers() {
	n := 1
	if _, isCluster := s.client.(*redis.ClusterClient); isCluster {
		n = max(len(s.partitions), minBreakers)
	}
	b := &s.breakers
	b.made = time.Now()
	b.ctx, b.stop = context.WithCancel(context.Background())
	for i := range n {
		b.parts = append(b.parts, &breaker{
			probeKey: probeKey(s.prefix, hashTag(i, n)), notice: max(noticed, s.cfg.ReportInterval), spared: s.spared(), made: b.made,
		})
	}
}

// breakerOf returns the breaker of the part that a key is in.
func (s *Store) breakerOf(key string) *breaker {
	parts := s.breakers.parts
	if len(parts) == 1 {
		return parts[0]
	}
	return parts[int(slotOf(hashed(key)))*len(parts)/clusterSlots]
}

// hashed is what the slot of a key depends on: what is in its first braces, or all of it.
func hashed(key string) string {
	if _, rest, found := strings.Cut(key, "{"); found {
		if tag, _, closed := strings.Cut(rest, "}"); closed && tag != "" {
			return tag
		}
	}
	return key
}

// Breakers tells of which parts of the store this program has stopped to ask because they did not answer.
type Breakers struct {
	Parts int   // a single server is one, of a Redis Cluster each of at least 16 ranges of slots
	Open  int   // of those, the ones that are not asked at present but for a probe every 500 ms
	Trips int64 // how often a part became one of them
}

// Breakers tells which parts of the store do not answer. It asks nobody.
func (s *Store) Breakers() Breakers {
	told := Breakers{Parts: len(s.breakers.parts), Trips: s.breakers.trips.Load()}
	for _, b := range s.breakers.parts {
		if b.isOpen.Load() {
			told.Open++
		}
	}
	return told
}

// checkBreaker refuses a call that would wait in vain, and sees to it that the part is probed. What is patient is always let through:
// such calls are few and nobody waits for them, and the leader must not miss the moment when the store is back.
func (s *Store) checkBreaker(c call) error {
	if c.script.isPatient {
		return nil
	}
	err := s.checkKey(c.keys[0])
	if err != nil {
		s.observer.CallDone(c.script.name, CallNotMade, 0)
	}
	return err
}

// checkKey is checkBreaker for whatever is to be done with a key.
func (s *Store) checkKey(key string) error {
	b := s.breakerOf(key)
	if !b.isOpen.Load() {
		return nil
	}
	now := time.Now()
	s.startProbe(b, now)
	return b.refusal(now)
}

// tell takes in what became of a call, or of several to one part of the store.
func (s *Store) tell(b *breaker, v verdict, err error, begun time.Time) {
	now := time.Now()
	if v == answered && !b.isFailing.Load() { // as always
		b.note(v, err, begun, now)
		return
	}
	s.breakers.mu.Lock()
	defer s.breakers.mu.Unlock()
	if b.note(v, err, begun, now) && v == failed {
		s.breakers.trips.Add(1)
	}
	if v == unclear {
		return
	}
	until := now.Add(s.spared()).Sub(s.breakers.made)
	for _, part := range s.breakers.parts {
		if part.isFailing.Load() {
			until = math.MaxInt64
		}
	}
	s.breakers.troubledUntil.Store(int64(until))
}

// spared is for how long after an outage sessions end later: long enough for two reports of each replica, of which the first may fail
// where the store is slow after it came back.
func (s *Store) spared() time.Duration { return 2 * s.cfg.ReportSlack }

// leewayMillis is by how much later than usual sessions end for want of activity: what other replicas could not report during
// an outage must land before anybody takes it for missing. It is as long as the longest outage of a part of the store that
// lasts, or has ended a short while ago (see spared), as far as this program could see.
func (s *Store) leewayMillis() int64 {
	until := s.breakers.troubledUntil.Load()
	if until == 0 {
		return 0
	}
	now := time.Now()
	if int64(now.Sub(s.breakers.made)) > until {
		return 0
	}
	var most time.Duration
	for _, b := range s.breakers.parts {
		most = max(most, b.leeway(now))
	}
	return most.Milliseconds()
}

// startProbe probes a part of the store, if it is time to. The goroutine ends within the store's timeout, or with the store.
func (s *Store) startProbe(b *breaker, now time.Time) {
	s.breakers.mu.Lock()
	defer s.breakers.mu.Unlock()
	if s.breakers.isClosed || !b.wantsProbe(now) {
		return
	}
	s.breakers.probes.Go(func() {
		defer b.probed()
		s.probe(b)
	})
}

// probe asks for something that only a server which also takes writes can do. It leaves nothing. What was there before the
// outage is not used for it: those connections may be dead, though the server is not.
func (s *Store) probe(b *breaker) {
	ctx, cancel := context.WithTimeout(s.breakers.ctx, s.cfg.StoreTimeout)
	defer cancel()
	begun := time.Now()
	if address, err := s.addressOf(ctx, b.probeKey); err == nil && s.connections != nil {
		s.connections.closeSilent(address, b.failingSince())
	}
	var err error
	for range maxStale {
		cmd := once{Cmd: redis.NewCmd(ctx, "del", b.probeKey)}
		if err = s.client.Process(ctx, cmd); err == nil || !isBrokenConnection(err) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		err = unavailable(err)
	}
	s.tell(b, s.judge(err, time.Since(begun)), err, begun)
}

// addressOf is where a key is, empty when there is only one place.
func (s *Store) addressOf(ctx context.Context, key string) (string, error) {
	nodes, isCluster := s.client.(*redis.ClusterClient)
	if !isCluster {
		return "", nil
	}
	node, err := nodes.MasterForKey(ctx, key)
	if err != nil {
		return "", err
	}
	return node.Options().Addr, nil
}

// endProbes waits until no probe runs; none begins any more.
func (s *Store) endProbes() {
	s.breakers.mu.Lock()
	s.breakers.isClosed = true
	s.breakers.mu.Unlock()
	s.breakers.stop()
	s.breakers.probes.Wait()
}

// cannotServe begins what a server says that is there, but cannot do its work.
var cannotServe = []string{"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN"}

// judge says what the outcome of a call tells about the store, after it took so long.
func (s *Store) judge(err error, took time.Duration) verdict {
	switch {
	case err == nil || !errors.Is(err, cluster.ErrStoreUnavailable): // what domainError makes of an answer
		return answered
	case errors.Is(err, context.Canceled), errors.Is(err, redis.ErrClosed):
		return unclear
	case isBrokenConnection(err):
		return unclear // it may have been dead for long; whether another works, the next call shows
	case isReply(err):
		reply, _ := errors.AsType[redis.Error](err)
		if slices.ContainsFunc(cannotServe, func(word string) bool { return redis.HasErrorPrefix(reply, word) }) {
			return failed
		}
		return answered
	case isTimeout(err):
		if took < s.cfg.StoreTimeout-s.cfg.StoreTimeout/10 {
			return unclear // the caller was in a greater hurry than the store need be
		}
		return failed
	case errors.Is(err, errMalformedReply), errors.Is(err, errScriptLost), isTooFew(err):
		return answered
	default:
		return failed
	}
}

func isTooFew(err error) bool {
	_, ok := errors.AsType[*tooFewError](err)
	return ok
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, redis.ErrPoolTimeout) || (ok && timeout.Timeout())
}

// notSent marks an error of a call that certainly did not reach the store: no connection was there, nor could be made.
func notSent(err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if (ok && op.Op == "dial") || errors.Is(err, redis.ErrPoolTimeout) {
		return fmt.Errorf("%w: %w", cluster.ErrNotSent, err)
	}
	return unavailable(err)
}
