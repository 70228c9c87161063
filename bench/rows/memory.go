package rows

import (
	"context"
	"errors"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/bench/world"
)

// memory measures what a session costs Redis: a server is filled, and what its memory has grown by is divided. It is filled twice;
// the control is the second time over the first.
func memory(p Plan) measure.Experiment {
	return measure.Experiment{
		Rows: []measure.Row{
			{Name: "memory-record", What: "used_memory a session, of " + count(p.Many) + ": record, indexes and TTL", Unit: "B", Goal: 700, NeedsFull: true},
			{Name: "memory-all", What: "the same: everything that a default session keeps", Unit: "B", Goal: 1331, NeedsFull: true}, // 1.3 KiB
		},
		Pairs: 1,
		Pair: func(ctx context.Context, turn int) ([]measure.Sample, error) {
			if turn == 0 { // there is nothing to warm up
				return nil, nil
			}
			var samples []measure.Sample
			for _, message := range []string{"", world.Initialize} {
				var each [2]float64
				for i := range each {
					var err error
					if each[i], err = memoryEach(ctx, p.Many, message); err != nil {
						return nil, err
					}
				}
				samples = append(samples, measure.Sample{Value: each[0], Control: each[1] / each[0]})
			}
			return samples, nil
		},
	}
}

// memoryEach fills a new server and returns the bytes that it needs for each session.
func memoryEach(ctx context.Context, n int, message string) (each float64, err error) {
	store, err := world.StartStore(ctx, world.Limits(), storeCallers)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if _, _, err := store.NewSession(ctx, message); err != nil { // what the first session costs is the store's, not its own
		return 0, err
	}
	before, err := world.UsedMemory(ctx, store.Client)
	if err != nil {
		return 0, err
	}
	if _, err := store.Fill(ctx, n, message); err != nil {
		return 0, err
	}
	after, err := world.UsedMemory(ctx, store.Client)
	return float64(after-before) / float64(n), err
}
