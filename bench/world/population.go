package world

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// originals are the sessions that are made as replicas make them; all others of a population are copies of one of them.
	originals = 1000
	// copiesAtOnce is how many copies one script makes, fillers how many scripts wait at once.
	copiesAtOnce = 500
	fillers      = 8
)

// copySessions copies a session with its place in the indexes, under other ids. The copies have the original's secret.
//
// KEYS: session, more, lru, deadlines and counts of the original; then session and more of each copy. ARGV: the original's id; then
// the id of each copy.
var copySessions = redis.NewScript(`
local activity, ends = redis.call('ZSCORE', KEYS[3], ARGV[1]), redis.call('ZSCORE', KEYS[4], ARGV[1])
for n = 2, #ARGV do
  redis.call('COPY', KEYS[1], KEYS[2 + 2 * n])
  redis.call('COPY', KEYS[2], KEYS[3 + 2 * n])
  redis.call('ZADD', KEYS[3], activity, ARGV[n])
  redis.call('ZADD', KEYS[4], ends, ARGV[n])
end
redis.call('HINCRBY', KEYS[5], 'a', #ARGV - 1)
redis.call('HINCRBY', KEYS[5], 'created', #ARGV - 1)
return #ARGV - 1
`)

// Population are active sessions in a store.
type Population struct {
	calls []cluster.LeaseCall // of the originals
	ids   []cluster.ID        // of all, the originals first
}

// Fill makes n sessions with an initialize message, an empty one for none. Copies make it quick: a million take seconds. A test holds
// that they cost the same memory and that the store is none the wiser.
func (s *Store) Fill(ctx context.Context, n int, message string) (*Population, error) {
	p := &Population{calls: make([]cluster.LeaseCall, min(n, originals)), ids: make([]cluster.ID, n)}
	err := InParallel(ctx, fillers, len(p.calls), func(ctx context.Context, i int) error {
		_, call, err := s.NewSession(ctx, message)
		p.calls[i], p.ids[i] = call, call.ID
		return err
	})
	if err != nil || n <= originals {
		return p, err
	}
	prefix, err := s.prefix(ctx, p.ids[0])
	if err != nil {
		return p, err
	}
	if err := copySessions.Load(ctx, s.Client).Err(); err != nil {
		return p, err
	}
	copies := make([][]int, len(p.calls)) // of each original
	for i := originals; i < n; i++ {
		p.ids[i] = uuid.Must(uuid.NewV7())
		copies[i%originals] = append(copies[i%originals], i)
	}
	return p, InParallel(ctx, fillers, len(copies), func(ctx context.Context, original int) error {
		for batch := range slices.Chunk(copies[original], copiesAtOnce) {
			if err := p.copy(ctx, s.Client, prefix, original, batch); err != nil {
				return err
			}
		}
		return nil
	})
}

// prefix finds out what the names of keys begin with.
func (s *Store) prefix(ctx context.Context, id cluster.ID) (string, error) {
	const middle = ":session:"
	keys, err := s.Client.Keys(ctx, "*"+middle+id.String()).Result()
	if err != nil {
		return "", err
	}
	if len(keys) != 1 {
		return "", fmt.Errorf("the session %s has %d keys that look like its record", id, len(keys))
	}
	return strings.TrimSuffix(keys[0], middle[1:]+id.String()), nil
}

func (p *Population) copy(ctx context.Context, client *redis.Client, prefix string, original int, copies []int) error {
	id := p.ids[original].String()
	keys := append(make([]string, 0, 5+2*len(copies)),
		prefix+"session:"+id, prefix+"more:"+id, prefix+"lru", prefix+"deadlines", prefix+"counts")
	args := append(make([]any, 0, 1+len(copies)), id)
	for _, i := range copies {
		id := p.ids[i].String()
		keys, args = append(keys, prefix+"session:"+id, prefix+"more:"+id), append(args, id)
	}
	return copySessions.EvalSha(ctx, client, keys, args...).Err()
}

// Len is how many sessions there are.
func (p *Population) Len() int { return len(p.ids) }

// ID is the id of session i.
func (p *Population) ID(i int) cluster.ID { return p.ids[i] }

// Call is the call that leases session i.
func (p *Population) Call(i int) cluster.LeaseCall {
	call := p.calls[i%len(p.calls)]
	call.ID = p.ids[i]
	return call
}
