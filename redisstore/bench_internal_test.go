package redisstore

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// BenchmarkDecodeGrant reads the answer of session_lease.
func BenchmarkDecodeGrant(b *testing.B) {
	id := cluster.ID{1}
	reply := []any{
		int64(1), int64(24), int64(1_800_000), "1763900000000000", // what was granted
		int64(1_763_900_000_000), "1763901802000", int64(0), // clock, end, pending
		"a", strings.Repeat("d", 32), nil, "2", "files", "10.20.30.40:8080", "0123456789ABCDEFGHIJKLMNOP", "2025-11-25",
		"mcp-inspector", "0.17.2", "1763900000000", "1763900000000", "1763900000020000", "17", "ABCDEFGHIJKLM", nil, nil,
	}
	b.ReportAllocs()
	for b.Loop() {
		grant, err := decodeGrant(id, reply)
		if err != nil || grant.Session.UpstreamSession == "" {
			b.Fatalf("read %+v, %v", grant, err)
		}
	}
}

// BenchmarkReportCall makes the call of session_report for as many sessions as one takes.
func BenchmarkReportCall(b *testing.B) {
	s, err := Open("redis://127.0.0.1:1", Options{Config: cluster.DefaultConfig()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	reports := make([]cluster.Report, reportsPerScript)
	for i := range reports {
		reports[i] = cluster.Report{ID: cluster.ID{byte(i)}, Idle: 230 * time.Millisecond, Requests: 10, Unspent: 2, UnspentSince: time.Now(), Want: 12}
	}
	b.ReportAllocs()
	for b.Loop() {
		if c := s.reportCall(s.partitions[0], reports); len(c.keys) != 2+2*len(reports) {
			b.Fatalf("the call has %d keys", len(c.keys))
		}
	}
}
