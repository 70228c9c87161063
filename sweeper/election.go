package sweeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// The TTL of the leader's lock.
const (
	DefaultTTL = 10 * time.Second
	MinTTL     = time.Second
	MaxTTL     = 10 * time.Minute
)

// ElectionConfig configures an [Election].
type ElectionConfig struct {
	// Store holds the lock and the epochs. Required.
	Store *redisstore.Store
	// Incarnation names this process and no other, before or after it. The lock's value begins with it. Required; no
	// white space.
	Incarnation string
	// TTL is how long the lock lasts without an extension, and so about how long nobody leads after a leader's death.
	// The same for all replicas. Default 10s; 1s to 10m.
	TTL time.Duration
	// Caretaker is called, at most once a tick, when the store's memory is full and nobody leads: the lock cannot be
	// taken then, and cleaning is what would help. It makes one bounded sweep under the stored epoch, without the lock;
	// several replicas may do so at once, and the fence makes a late one harmless. Its ctx ends after one TTL. Default:
	// nothing is done.
	Caretaker func(ctx context.Context, epoch int64) error
	// InOutage tells which faults of the store are an outage, of which whoever runs the replica is told without the Election: they are
	// logged at debug. Default: none are.
	InOutage cluster.InOutage
	// Logger default: discards.
	Logger *slog.Logger
	// Observer default: none.
	Observer Observer
}

func (c ElectionConfig) validate() error {
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("election: a store is needed"))
	}
	if c.Incarnation == "" || strings.ContainsFunc(c.Incarnation, func(r rune) bool { return r <= ' ' }) {
		errs = append(errs, fmt.Errorf("election: %q is no incarnation: it must not be empty or hold white space", c.Incarnation))
	}
	if c.TTL < MinTTL || c.TTL > MaxTTL {
		errs = append(errs, fmt.Errorf("election: a lock of %v is not in %v to %v", c.TTL, MinTTL, MaxTTL))
	}
	return errors.Join(errs...)
}

// Election makes one of all replicas the leader at a time. It is safe for concurrent use.
type Election struct {
	cfg   ElectionConfig
	locks *redsync.Redsync
	// wake says that a leader has resigned. It holds one word: a second one would say the same.
	wake    chan struct{}
	running atomic.Bool

	// Of Run's goroutine alone.
	notBefore time.Time // does not stand earlier, because it could not lead
	tendedAt  time.Time // last call of the caretaker
	trouble   trouble   // what was said last

	mu     sync.Mutex
	term   *Term  // nil while following
	leader string // the incarnation last seen leading
	seenAt time.Time
	epoch  int64 // the greatest known
}

// NewElection returns an election that has not begun; see [Election.Run]. Errors: what is wrong with the configuration.
func NewElection(cfg ElectionConfig) (*Election, error) {
	cfg.TTL = cmp.Or(cfg.TTL, DefaultTTL)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Election{
		cfg:   cfg,
		locks: redsync.New(goredis.NewPool(cfg.Store.Client())),
		wake:  make(chan struct{}, 1),
	}, nil
}

var errRunning = errors.New("election: already running")

// Run stands for election until ctx is done, and then returns nil. While this replica leads, it calls lead, one call for
// each [Term]. The ctx of lead is cancelled, with a cause, when the trust window ends, as soon as an extension finds the
// lock lost ([ErrTrustEnded], [ErrLockLost]), and when Run's is done. Run waits for lead to return, and gives the lock
// back: after a clean stop another replica leads at once. So lead must return soon after its ctx is done.
//
// When lead returns before that, with an error or without, or panics, the replica resigns and does not stand again for one
// TTL, so that another can. So it does when it could not extend its lock in time.
//
// A store that is away, or full, is no error: Run tries again at its tick, about every fifth of a TTL. The only error is
// that Run is running already. The caller owns the goroutine.
func (e *Election) Run(ctx context.Context, lead func(ctx context.Context, term *Term) error) error {
	if !e.running.CompareAndSwap(false, true) {
		return errRunning
	}
	defer e.running.Store(false)

	// Run starts the listener; it stops when ctx is done, and Run waits for it, so that nothing outlives Run.
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		e.listen(ctx)
	}()
	defer func() { <-listening }()

	for ctx.Err() == nil {
		e.stand(ctx, lead)
		e.pause(ctx)
	}
	return nil
}

// tick returns how long until the next look at who leads: up to a fifth of the TTL, so that a dead leader has a successor
// that soon after its lock is gone, and not the same for all.
func (e *Election) tick() time.Duration {
	longest := e.cfg.TTL / 5
	return longest - rand.N(longest/4) //nolint:gosec // spreads load, hides nothing
}

// wakeJitter spreads those whom a resignation wakes, so that the first to come is elected before the last one asks.
const wakeJitter = 50 * time.Millisecond

// pause waits for the tick, or for a resignation.
func (e *Election) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(e.tick()):
	case <-e.wake:
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(wakeJitter)): //nolint:gosec // spreads load, hides nothing
		}
	}
}

// stand looks who leads, and when nobody does, tries to, and leads until that is over.
func (e *Election) stand(ctx context.Context, lead func(context.Context, *Term) error) {
	seen, err := e.look(ctx)
	if err != nil {
		e.say(ctx, storeAway, err)
		return
	}
	if seen.Holder != "" {
		e.say(ctx, noTrouble, nil)
		return
	}
	if time.Now().Before(e.notBefore) {
		return
	}
	term, err := e.acquire(ctx)
	switch _, isTaken := errors.AsType[*redsync.ErrTaken](err); {
	case isTaken:
		e.say(ctx, noTrouble, nil)
	case redis.HasErrorPrefix(err, "OOM"):
		e.say(ctx, storeFull, err)
		e.tend(ctx, seen.Epoch)
	case err != nil:
		e.say(ctx, storeAway, err)
	default:
		e.say(ctx, noTrouble, nil)
		e.reign(ctx, term, lead)
	}
}

// callTimeout bounds a call of the store: a fifth of the TTL, so that a follower is not held up longer than by its tick.
func (e *Election) callTimeout() time.Duration { return e.cfg.TTL / 5 }

// look asks the store who leads.
func (e *Election) look(ctx context.Context) (redisstore.Leadership, error) {
	ctx, cancel := context.WithTimeout(ctx, e.callTimeout())
	defer cancel()
	seen, err := e.cfg.Store.Leadership(ctx)
	if err != nil {
		return seen, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leader, e.seenAt, e.epoch = HolderIncarnation(seen.Holder), time.Now(), max(e.epoch, seen.Epoch)
	return seen, nil
}

// tend lets the caretaker do what a leader would, because there can be none.
func (e *Election) tend(ctx context.Context, epoch int64) {
	shortest := e.cfg.TTL / 5 * 3 / 4
	if e.cfg.Caretaker == nil || (!e.tendedAt.IsZero() && time.Since(e.tendedAt) < shortest) {
		return
	}
	e.tendedAt = time.Now()
	ctx, cancel := context.WithTimeout(ctx, e.cfg.TTL)
	defer cancel()
	err := guard("caretaker", e.cfg.Logger, e.cfg.Observer, func() error { return e.cfg.Caretaker(ctx, epoch) })
	if err != nil && ctx.Err() == nil {
		e.cfg.Logger.Warn("cleaning without a leader failed", "error", err)
	}
}

// trouble is what keeps an election from electing.
type trouble int

const (
	noTrouble trouble = iota
	storeAway         // the store does not answer, or not as it should
	storeFull         // the store has no memory left for a lock
)

// say logs once that there is trouble, and once that it is over.
func (e *Election) say(ctx context.Context, now trouble, err error) {
	if e.trouble == now || ctx.Err() != nil {
		return
	}
	e.trouble = now
	switch now {
	case storeAway:
		level := slog.LevelDebug // who runs a replica is told elsewhere that the store is away
		if _, isReply := errors.AsType[redis.Error](err); isReply {
			level = e.cfg.InOutage.Level(storeFault(err), time.Now()) // it is there, and refuses this alone or cannot serve yet
		}
		e.cfg.Logger.Log(ctx, level, "the store cannot be asked who leads; trying again until it can", "error", err)
	case storeFull:
		e.cfg.Logger.Warn("the store's memory is full, so no leader can be elected; cleaning up without one", "error", err)
	default:
		e.cfg.Logger.Debug("leaders can be elected again")
	}
}
