package rows

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/bench/measure"
	"github.com/tapwire/shadowcat-cluster/lua"
)

// likeScripts is how often likeScript runs.
const likeScripts = 200

var (
	sweepScript = redis.NewScript(lua.SessionsSweep) // for its digest
	// likeScript takes about as long as a script of cleanup, and always does the same: when it does not take the same time, that is the machine.
	likeScript = redis.NewScript("local sum = 0 for n = 1, 20000 do sum = sum + n % 7 end return sum")
)

// scripts returns the median and the p99 of what the server says that scripts of cleanup took since it was last asked, in milliseconds. The
// controls are those of a script that always does the same: the median of its later half over that of its earlier one, and its p99 over its
// median. A server that has to wait for a processor counts the wait.
func (s *swept) scripts(ctx context.Context) (median, p99 measure.Sample, err error) {
	took, err := s.slowLog(ctx, sweepScript)
	if err != nil {
		return median, p99, err
	}
	for range likeScripts {
		if err := likeScript.Run(ctx, s.store.Client, nil).Err(); err != nil {
			return median, p99, err
		}
	}
	like, err := s.slowLog(ctx, likeScript)
	if err != nil {
		return median, p99, err
	}
	half := len(like) / 2 // the last come first
	median = measure.Sample{Value: quantile(took, 0.5).Seconds() * 1000, Control: ratio(quantile(like[:half], 0.5), quantile(like[half:], 0.5))}
	p99 = measure.Sample{Value: quantile(took, 0.99).Seconds() * 1000, Control: ratio(quantile(like, 0.99), quantile(like, 0.5))}
	return median, p99, nil
}

func ratio(a, b time.Duration) float64 { return a.Seconds() / b.Seconds() }

// slowLog returns what each run of a script took, the last one first, and empties the slow log.
func (s *swept) slowLog(ctx context.Context, script *redis.Script) ([]time.Duration, error) {
	entries, err := s.store.Client.SlowLogGet(ctx, -1).Result()
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for _, e := range entries {
		if len(e.Args) > 1 && e.Args[1] == script.Hash() {
			took = append(took, e.Duration)
		}
	}
	if len(took) < 2 {
		return nil, fmt.Errorf("the server tells of %d runs of a script, which is too few", len(took))
	}
	return took, s.store.Client.Do(ctx, "slowlog", "reset").Err()
}
