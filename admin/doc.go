// Package admin serves what operators and their machines ask one replica: is it alive (/healthz), may it get traffic
// (/readyz), and what has it done (/metrics). It is a port of its own, so that clients never reach it.
//
//   - /healthz answers 200 as long as the process can answer at all. It never depends on the store: restarting a replica
//     does not bring a store back.
//   - /readyz answers 200 or 503 with the same JSON object: what was checked, and why it failed. The store is probed by
//     one goroutine ([Admin.Run]), never by the request, so that the answer comes at once whatever the store does.
//   - /metrics is the Prometheus text format. Names begin with shadowcat_, but for the Go runtime's and the process's
//     own. Metrics of the whole cluster come from the store and are the same at every replica: their help says so, and
//     they must not be summed. docs/metrics.md is made from the same table as the metrics themselves.
package admin

//go:generate go run ./generate ../docs/metrics.md
