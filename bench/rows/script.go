package rows

import (
	"cmp"
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/world"
	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

const (
	scriptSessions = 10_000 // of which each is leased in turn
	scriptBatch    = 500    // calls in one pipeline
)

// leaseScript measures the server's processor time of session_lease, over that of an empty script with the same keys and arguments.
func leaseScript(p Plan) measure.Experiment {
	batches := 60
	if p.Quick {
		batches = 10
	}
	var store *world.Store
	var first, again [][]any
	var digests [2]string
	replay := func(calls [][]any, digest string) measure.Arm {
		return func(ctx context.Context) (float64, error) {
			before, err := world.CPU(ctx, store.Client)
			if err != nil {
				return 0, err
			}
			for batch := range batches {
				if err := replayBatch(ctx, store.Client, calls, batch*scriptBatch, digest); err != nil {
					return 0, err
				}
			}
			after, err := world.CPU(ctx, store.Client)
			return (after - before).Seconds(), err
		}
	}
	return measure.Experiment{
		Rows: []measure.Row{
			{Name: "lease-script", What: "server CPU of one session_lease, over an empty script with the same keys and arguments", Unit: "x", Goal: 6},
			{Name: "lease-script-first", What: "the same where the replica does not know the session's record yet", Unit: "x"},
		},
		Prepare: func(ctx context.Context) (err error) {
			if store, err = world.StartStore(ctx, world.Limits(), storeCallers); err != nil {
				return err
			}
			if first, again, err = captureLeases(ctx, store); err != nil {
				return err
			}
			for i, text := range []string{"return 0", "return 1"} {
				if digests[i], err = store.Client.ScriptLoad(ctx, text).Result(); err != nil {
					return err
				}
			}
			return nil
		},
		Pair: func(ctx context.Context, turn int) ([]measure.Sample, error) {
			known, err := measure.Pair(ctx, turn, replay(again, digests[0]), replay(again, ""), replay(again, digests[1]))
			if err != nil {
				return nil, err
			}
			unknown, err := measure.Pair(ctx, turn, replay(first, digests[0]), replay(first, ""), replay(first, digests[1]))
			return []measure.Sample{known, unknown}, err
		},
		Close: func() error {
			if store == nil {
				return nil
			}
			return store.Close()
		},
	}
}

// replayBatch sends calls from the first on in one pipeline, with another script's digest, or their own.
func replayBatch(ctx context.Context, client *redis.Client, calls [][]any, first int, digest string) error {
	pipeline := client.Pipeline()
	for i := range scriptBatch {
		args := calls[(first+i)%len(calls)]
		if digest != "" {
			args = append([]any{args[0], digest}, args[2:]...)
		}
		pipeline.Do(ctx, args...)
	}
	_, err := pipeline.Exec(ctx)
	return err
}

// captureLeases fills a store and returns the commands that lease each of its sessions, as the store sends them for a replica that does
// not know the session, and for one that does. Requests are limited, as they are by default, but not so that any is refused.
func captureLeases(ctx context.Context, store *world.Store) (first, again [][]any, err error) {
	population, err := store.Fill(ctx, scriptSessions, world.Initialize)
	if err != nil {
		return nil, nil, err
	}
	cfg := world.Limits()
	cfg.RequestRate = 100_000
	client := store.Server.Client()
	defer client.Close()
	seen := &commands{}
	client.AddHook(seen)
	watched, err := redisstore.New(client, redisstore.Options{Config: cfg})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, watched.Close()) }()
	capture := func(call cluster.LeaseCall) ([]any, int64, error) {
		grant, err := watched.Lease(ctx, call)
		if err != nil || len(seen.evalsha) == 0 {
			return nil, 0, cmp.Or(err, errors.New("a lease called no script"))
		}
		return seen.evalsha[len(seen.evalsha)-1], grant.Session.Version, nil
	}
	for i := range population.Len() {
		call := population.Call(i)
		args, version, err := capture(call)
		if err != nil {
			return nil, nil, err
		}
		first, call.KnownVersion = append(first, args), version
		if args, _, err = capture(call); err != nil {
			return nil, nil, err
		}
		again = append(again, args)
	}
	return first, again, nil
}

// commands remembers the calls of scripts that pass a client. It is not for use by several goroutines at once.
type commands struct{ evalsha [][]any }

// DialHook changes nothing.
func (c *commands) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return next(ctx, network, address)
	}
}

// ProcessHook remembers.
func (c *commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			c.evalsha = append(c.evalsha, cmd.Args())
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook changes nothing: leases are not pipelined.
func (c *commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
