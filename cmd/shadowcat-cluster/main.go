// Command shadowcat-cluster runs replicas of an MCP proxy that share their sessions, and looks after those sessions.
package main

import (
	"context"
	"os"

	"github.com/redis/go-redis/v9/logging"
)

// version is set by the linker: -ldflags '-X main.version=v1.2.3'.
var version = "dev"

func main() {
	// The client logs every failed attempt to connect, unstructured. We log a store that goes away, once.
	logging.Disable()
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
