package redisstore

import "testing"

func TestSlotsAreThoseOfRedisCluster(t *testing.T) {
	t.Parallel()
	// The check value of CRC-16/XMODEM in the Redis Cluster specification, and CLUSTER KEYSLOT of a real server.
	for tag, want := range map[string]uint16{"123456789": 0x31c3, "0": 13907, "user1000": 3443} {
		if got := slotOf(tag); got != want%clusterSlots {
			t.Errorf("slot of %q is %d, want %d", tag, got, want)
		}
	}
}

func TestPartitionsSpreadOverSlotsAndShareTheCap(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 16, 100, MaxPartitions} {
		const most = 10_007
		total, seen := 0, make(map[string]bool)
		for i, p := range makePartitions("x", n, most) {
			total += p.cap
			if seen[p.prefix] {
				t.Errorf("%d partitions: number %d shares its keys with another", n, i)
			}
			seen[p.prefix] = true
			if slot := int(slotOf(hashTag(i, n))); slot*n/clusterSlots != i {
				t.Errorf("%d partitions: number %d lies in slot %d, outside of its range", n, i, slot)
			}
		}
		if total != most {
			t.Errorf("the shares of %d partitions add up to %d, want %d", n, total, most)
		}
	}
}
