// Package integration proves Shadowcat Cluster on real traffic: real processes, a real redis-server, the official Go SDK
// client and the SDK's own everything-server.
//
// The tests are in this folder. What they stand on is in small packages of its own, so that other programs can use it too:
//
//   - [github.com/tapwire/shadowcat-cluster/integration/process]: one child process, started, watched, stopped
//   - [github.com/tapwire/shadowcat-cluster/integration/binary]: builds a command of this module or of a dependency
//   - [github.com/tapwire/shadowcat-cluster/integration/redisserver]: a redis-server of one's own
//   - [github.com/tapwire/shadowcat-cluster/integration/sentinel]: a Redis with replicas that sentinels watch
//   - [github.com/tapwire/shadowcat-cluster/integration/rediscluster]: a Redis Cluster of one's own
//   - [github.com/tapwire/shadowcat-cluster/integration/dnsserver]: a DNS whose names tests give addresses
//   - [github.com/tapwire/shadowcat-cluster/integration/lossyproxy]: what a network does between a client and a Redis
//   - [github.com/tapwire/shadowcat-cluster/integration/authority]: certificates for tests
//   - [github.com/tapwire/shadowcat-cluster/integration/issuer]: an authorization server for tests
//   - [github.com/tapwire/shadowcat-cluster/integration/everything]: the upstream, the Go SDK's everything-server
//   - [github.com/tapwire/shadowcat-cluster/integration/upstreamserver]: an upstream to be killed, whose effects can be counted
//   - [github.com/tapwire/shadowcat-cluster/integration/tsclient]: clients of the official TypeScript SDK
//   - [github.com/tapwire/shadowcat-cluster/integration/replica]: one `shadowcat-cluster serve`
//   - [github.com/tapwire/shadowcat-cluster/integration/roundrobin]: the balancer in front, which remembers who served what
//   - [github.com/tapwire/shadowcat-cluster/integration/deployment]: replicas and balancer together
package integration
