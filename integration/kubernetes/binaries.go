package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// programs are those of Kubernetes, with what they need: by import path, in the module that pins them.
var programs = []struct {
	module, path, name string
	isFor              nodeKind
}{
	{"tools", "go.etcd.io/etcd/server/v3", "etcd", anyNodes},
	{"tools", "k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver", anyNodes},
	{"tools", "k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager", anyNodes},
	{"tools", "k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler", anyNodes},
	{"tools", "k8s.io/kubernetes/cmd/kubectl", "kubectl", anyNodes},
	{"tools", "helm.sh/helm/v4/cmd/helm", "helm", anyNodes},
	{"tools", "k8s.io/kubernetes/cmd/kubelet", "kubelet", realNodes},
	{"tools", "k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy", realNodes},
	{"coredns", ".", "coredns", realNodes},
	{"kwok", "sigs.k8s.io/kwok/cmd/kwok", "kwok", fakeNodes},
}

// nodeKind says whether nodes run anything.
type nodeKind int

const (
	anyNodes nodeKind = iota
	realNodes
	fakeNodes
)

// sources is where those modules are, from the root of this one, where the program is run.
const sources = "integration/kubernetes"

// buildBinaries compiles what the cache does not have yet, which takes ten minutes the first time, and returns their folder: one
// for each state of what pins them.
func buildBinaries(ctx context.Context, out io.Writer, fake bool) (string, error) {
	folder, err := cacheFolder()
	if err != nil {
		return "", err
	}
	unused := fakeNodes
	if fake {
		unused = realNodes
	}
	for _, b := range programs {
		if b.isFor == unused {
			continue
		}
		executable := filepath.Join(folder, b.name)
		if _, err := os.Stat(executable); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		start := time.Now()
		fmt.Fprintf(out, "building %s ... ", b.name)
		// Moved into place when whole: this may be interrupted.
		if err := buildBinary(ctx, b.module, b.path, executable+".new"); err != nil {
			return "", err
		}
		if err := os.Rename(executable+".new", executable); err != nil {
			return "", err
		}
		fmt.Fprintf(out, "%s\n", time.Since(start).Round(time.Second))
	}
	if fake {
		return folder, writeStages(ctx, filepath.Join(folder, stagesFile))
	}
	return folder, nil
}

// stagesFile tells kwok what becomes of nodes and pods.
const stagesFile = "stages.yaml"

// writeStages puts together what kwok's own module has for nodes and pods that are ready at once.
func writeStages(ctx context.Context, path string) error {
	command := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok")
	command.Dir = filepath.Join(sources, "kwok")
	module, err := command.Output()
	if err != nil {
		return fmt.Errorf("find kwok's module: %w", err)
	}
	var stages []byte
	for _, name := range []string{"node/fast/node-initialize", "node/heartbeat/node-heartbeat", "pod/fast/pod-ready", "pod/fast/pod-complete", "pod/fast/pod-delete"} {
		stage, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(module)), "kustomize", "stage", name+".yaml"))
		if err != nil {
			return err
		}
		stages = append(append(stages, "---\n"...), stage...)
	}
	return os.WriteFile(path, stages, 0o644)
}

// buildBinary compiles one of them, with a low priority, because it takes all of a small machine.
func buildBinary(ctx context.Context, module, path, executable string) error {
	// Kubernetes is told its version by the linker, and charts ask for it.
	line := `exec nice go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$(
		go list -m -f '{{.Version}}' k8s.io/kubernetes 2>/dev/null || true)" -o "$1" "$0"`
	command := exec.CommandContext(ctx, "sh", "-euc", line, path, executable)
	command.Dir = filepath.Join(sources, module)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", path, err, output)
	}
	return nil
}

func cacheFolder() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	digest := sha256.New()
	fmt.Fprintln(digest, runtime.Version())
	for _, name := range []string{"tools/go.mod", "tools/go.sum", "coredns/go.mod", "coredns/go.sum", "coredns/main.go", "kwok/go.mod", "kwok/go.sum"} {
		content, err := os.ReadFile(filepath.Join(sources, name))
		if err != nil {
			return "", fmt.Errorf("%w: run this in the root of the module", err)
		}
		digest.Write(content)
	}
	folder := filepath.Join(cache, "shadowcat-cluster", "kubernetes", hex.EncodeToString(digest.Sum(nil))[:16])
	return folder, os.MkdirAll(folder, 0o755)
}
