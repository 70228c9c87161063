package redisstore

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

const (
	// clusterSlots is the number of hash slots of a Redis Cluster.
	clusterSlots = 16384
	// MaxPartitions bounds Options.Partitions. Every sweep and every listing visits all of them.
	MaxPartitions = 1024
)

// partition is one slice of the session space. Its keys share a hash tag, so that one script may touch all of them: they
// live in one slot of a Redis Cluster.
type partition struct {
	prefix string // of all its keys, hash tag included
	cap    int    // its share of max_sessions; 0: no cap
}

// makePartitions cuts the session space into n slices. The shares of the cap add up to it.
func makePartitions(prefix string, n, maxSessions int) []partition {
	partitions := make([]partition, n)
	for i := range partitions {
		share := maxSessions / n
		if i < maxSessions%n {
			share++
		}
		partitions[i] = partition{prefix: prefix + ":{" + hashTag(i, n) + "}:", cap: share}
	}
	return partitions
}

// hashTag returns the tag of partition i of n: the smallest number whose slot lies in the i-th of n equal ranges of slots.
// So partitions spread over the nodes of a cluster as evenly as its slots do. A single partition has the tag 0.
func hashTag(i, n int) string {
	first, behind := i*clusterSlots/n, (i+1)*clusterSlots/n
	for k := 0; ; k++ {
		tag := strconv.Itoa(k)
		if slot := int(slotOf(tag)); slot >= first && slot < behind {
			return tag
		}
	}
}

// slotOf is the hash slot of a tag: CRC-16/XMODEM modulo the number of slots, as the Redis Cluster specification says.
func slotOf(tag string) uint16 {
	var crc uint16
	for _, b := range []byte(tag) {
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % clusterSlots
}

// indexOf returns the number of the partition that a session lives in, for ever. The last bytes of a UUIDv7 are random.
func (s *Store) indexOf(id cluster.ID) int {
	return int(binary.BigEndian.Uint64(id[8:]) % uint64(len(s.partitions)))
}

func (s *Store) partitionOf(id cluster.ID) partition { return s.partitions[s.indexOf(id)] }

// tokenIn draws tokens until one's session falls into partition i: as often, on average, as there are partitions.
func (s *Store) tokenIn(i int) (cluster.Token, error) {
	for {
		token, err := cluster.NewToken()
		if err != nil || s.indexOf(token.ID) == i {
			return token, err
		}
	}
}

// twoPartitions picks two different partitions at random, of those that answer; twice the same if there is but one. It fails
// when there is none.
func (s *Store) twoPartitions() (a, b int, err error) {
	var there []int
	for i, p := range s.partitions {
		if refusal := s.checkKey(p.lru()); refusal != nil {
			err = refusal
			continue
		}
		there = append(there, i)
	}
	switch n := len(there); n {
	case 0:
		return 0, 0, err
	case 1:
		return there[0], there[0], nil
	default:
		first := rand.IntN(n)                                       //nolint:gosec // where a session lives is no secret
		return there[first], there[(first+1+rand.IntN(n-1))%n], nil //nolint:gosec // as above
	}
}
