// Package demo runs a whole cluster in one process, for people to look at: an embedded Redis, an example MCP server that
// keeps state, several proxy replicas, and a front that hands each request to the next replica. Every part but the
// example and the front is the one that production runs, and they talk over loopback TCP as they would over a network.
//
//	client -> front -> replica-1..n -> example server
//	                        |
//	                      Redis
//
// It is made for one person on one machine: nothing is authenticated, and all of it is gone when the process ends.
package demo
