// Package peers is what one would use instead, each as its own documentation says.
package peers

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// scanCount is how many keys one SCAN looks at, and how many records one pipeline reads.
const scanCount = 1000

// Scan is the cleaner that everybody writes first: it goes through all keys, reads each session's last activity, and counts those that
// came after a moment. Which side of the moment is looked for costs the same.
func Scan(ctx context.Context, client *redis.Client, since time.Time) (found int, err error) {
	cursor := uint64(0)
	for {
		var keys []string
		if keys, cursor, err = client.Scan(ctx, cursor, "*:session:*", scanCount).Result(); err != nil {
			return found, err
		}
		pipeline := client.Pipeline()
		activity := make([]*redis.SliceCmd, len(keys))
		for i, key := range keys {
			activity[i] = pipeline.HMGet(ctx, key, "s", "a")
		}
		if _, err := pipeline.Exec(ctx); err != nil {
			return found, err
		}
		for _, fields := range activity {
			status, _ := fields.Val()[0].(string)
			last, _ := fields.Val()[1].(string)
			at, err := strconv.ParseInt(last, 10, 64)
			if err != nil {
				return found, err
			}
			if status == "a" && at >= since.UnixMilli() {
				found++
			}
		}
		if cursor == 0 {
			return found, nil
		}
	}
}
