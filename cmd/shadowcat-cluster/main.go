// Command shadowcat-cluster runs replicas of an MCP proxy that share their sessions, and looks after those sessions.
package main

import (
	"context"
	"os"
)

// version is set by the linker: -ldflags '-X main.version=v1.2.3'.
var version = "dev"

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
