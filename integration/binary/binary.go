// Package binary builds Go commands, of this module or of one it depends on, for tests and tools to run.
package binary

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
)

// Import paths of the commands that the integration tests run.
const (
	// ShadowcatCluster is the product.
	ShadowcatCluster = "github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster"
	// EverythingServer is the Go SDK's conformance server: every feature of the protocol in one upstream.
	EverythingServer = "github.com/modelcontextprotocol/go-sdk/conformance/everything-server"
)

// Build compiles the command with the given import path into dir and returns the path of the executable. The working
// directory must be inside this module. A caller that is itself built with the race detector gets a command that is, too.
func Build(ctx context.Context, dir, importPath string) (string, error) {
	return build(ctx, filepath.Join(dir, path.Base(importPath)), importPath)
}

func build(ctx context.Context, executable, importPath string, flags ...string) (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", errors.New("build " + importPath + ": the go command is not on PATH")
	}
	args := append([]string{"build", "-o", executable}, flags...)
	if raceDetector {
		args = append(args, "-race")
	}
	output, err := exec.CommandContext(ctx, "go", append(args, importPath)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", importPath, err, output)
	}
	return executable, nil
}
