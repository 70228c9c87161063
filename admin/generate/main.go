// Command generate writes the documentation of all metrics to the file that its only argument names.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/tapwire/shadowcat-cluster/admin"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate FILE")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(admin.Document()), 0o644)
}
