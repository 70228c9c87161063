package redisstore

import (
	"context"
	"strings"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Stats implements [cluster.ListStore].
func (s *Store) Stats(ctx context.Context) (cluster.Stats, error) {
	calls := make([]call, len(s.partitions))
	for i, p := range s.partitions {
		calls[i] = call{script: countsRead, keys: []string{p.counts(), p.deadlines(), p.ended()}}
	}
	stats := newStats()
	for _, result := range s.pipeline(ctx, calls) {
		if result.err != nil {
			return cluster.Stats{}, result.err
		}
		if err := addCounts(&stats, result.reply); err != nil {
			return cluster.Stats{}, unavailable(err)
		}
	}
	return stats, nil
}

func newStats() cluster.Stats {
	stats := cluster.Stats{ByStatus: make(map[cluster.Status]int64), Ended: make(map[cluster.Status]int64)}
	for _, status := range cluster.Statuses() {
		stats.ByStatus[status] = 0
		if status.Ended() {
			stats.Ended[status] = 0
		}
	}
	return stats
}

// addCounts adds one partition's reply of counts_read.
func addCounts(stats *cluster.Stats, reply []any) error {
	if len(reply) < 2 || len(reply)%2 != 0 {
		return errMalformedReply
	}
	var d decoder
	stats.Due += d.number(reply[0])
	stats.Lag = max(stats.Lag, d.millis(reply[1]))
	for i := 2; i < len(reply); i += 2 {
		name, value := d.text(reply[i]), d.number(reply[i+1])
		if code, isTotal := strings.CutPrefix(name, "ended:"); isTotal {
			if status := statusByCode[code]; status.Ended() { // a status of a newer program is no status here
				stats.Ended[status] += value
			}
		} else if name == "created" {
			stats.Created += value
		} else if status, known := statusByCode[name]; known {
			stats.ByStatus[status] += value
		}
	}
	return d.err
}
