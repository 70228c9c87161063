package redisstore

import "strings"

// clientCommands are what the store and its client library send. HELLO and AUTH need no permission.
const clientCommands = "+eval +evalsha " + // every transition
	"+time +zcard +zrangebyscore " + // listing and placement
	"+ping +select " + // readiness; a database other than 0
	"+wait " + // wait_replicas
	"+get +pttl +set +del +pexpire +publish +subscribe +unsubscribe " + // the leader's lock, and the word of its end
	"+info +scan " + // how full the server is; the reconciler's walk through all keys
	"+asking +cluster|slots +command" // a Redis Cluster's topology

// scriptCommands are what the scripts call: Redis asks for the permission of each, as if the user had sent it.
const scriptCommands = "+exists +get +persist +hdel +hget +hgetall +hincrby +hkeys +hlen +hmget +hset +pexpireat +set +time +type +unlink " +
	"+xadd +xdel +xlen +xrange +xrevrange +zadd +zcard +zcount +zrange +zrangebyscore +zrem +zremrangebyscore +zscore"

// ACLRule returns all that a Redis user must be allowed for a store with the given prefix, in the language of ACL SETUSER:
//
//	ACL SETUSER shadowcat on ><password> <rule>
//
// Nothing less works and nothing more is needed, on a single server, behind Sentinel and on a Redis Cluster, where each
// node, replicas too, must have the user. The user reads and writes keys that begin with the prefix and a colon, and no
// other key; the names of all keys in the database it can list. It cannot read the server's configuration. So
// [Store.MemoryPolicy] and [Store.Violations] fail: the former needs +config|get, the latter [DiagnosticACLRule].
func ACLRule(prefix string) string {
	return "resetkeys ~" + prefix + ":* resetchannels &" + prefix + ":* -@all " + commands(clientCommands, scriptCommands)
}

// DiagnosticACLRule is what a user must be allowed for [Store.Violations], besides ACLRule of the same prefix.
func DiagnosticACLRule() string { return "+object|encoding" }

// SentinelACLRule returns all that a user of the sentinels must be allowed, in the language of ACL SETUSER. Such a user is
// another one than that of ACLRule, on other servers; sentinels without users need none.
func SentinelACLRule() string {
	return "resetchannels &+switch-master &+replica-reconf-done -@all " +
		"+ping +sentinel|get-master-addr-by-name +sentinel|sentinels +subscribe"
}

// commands joins lists of permissions, each named once.
func commands(lists ...string) string {
	var all []string
	seen := make(map[string]bool)
	for command := range strings.FieldsSeq(strings.Join(lists, " ")) {
		if !seen[command] {
			seen[command] = true
			all = append(all, command)
		}
	}
	return strings.Join(all, " ")
}
