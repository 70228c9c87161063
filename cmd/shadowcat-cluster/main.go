// Command shadowcat-cluster runs replicas of an MCP proxy that share their sessions, and looks after those sessions.
package main

import (
	"context"
	"os"

	"github.com/redis/go-redis/v9/logging"
)

// Set by the linker: -ldflags '-X main.version=v1.2.3 -X main.commit=0123abc'. A commit that is not is Go's to know.
var (
	version = "dev"
	commit  = ""
)

func main() {
	// The client logs every failed attempt to connect, unstructured. We log a store that goes away, once.
	logging.Disable()
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
