package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tapwire/shadowcat-cluster/integration/process"
)

// node is one kubelet with a containerd of its own. Nodes share the machine's kernel and one bridge; pods and cgroups are apart.
type node struct {
	name, address     string
	firstPod, lastPod string // the addresses of its pods
}

var nodeNames = []node{
	{"node-1", "10.244.0.11", "10.244.1.1", "10.244.1.254"},
	{"node-2", "10.244.0.12", "10.244.2.1", "10.244.2.254"},
}

// user is who the node is to the API.
func (n node) user() string { return "system:node:" + n.name }

// startNodes starts the nodes, with all images, and waits until pods can run on them.
func (c *cluster) startNodes(ctx context.Context) error {
	for _, n := range nodeNames {
		if err := c.startNode(ctx, n); err != nil {
			return err
		}
	}
	_, err := c.kubectl(ctx, "wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
	return err
}

// startFakeNodes starts what says for nodes that their pods run.
func (c *cluster) startFakeNodes(ctx context.Context) error {
	admin, err := c.kubeconfig(adminUser)
	if err != nil {
		return err
	}
	err = c.start(ctx, process.Answering("http://127.0.0.1:10247/healthz", http.StatusOK), "kwok",
		"--kubeconfig="+admin, "--config="+filepath.Join(c.binaries, stagesFile), "--manage-all-nodes=true", "--cidr="+network, "--server-address=127.0.0.1:10247")
	if err != nil {
		return err
	}
	var all []string
	for _, n := range nodeNames {
		all = append(all, n.name)
	}
	if err := c.apply(ctx, "fakenodes.yaml", all); err != nil {
		return err
	}
	_, err = c.kubectl(ctx, "wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
	return err
}

func (c *cluster) startNode(ctx context.Context, n node) error {
	folder := filepath.Join(c.work, n.name)
	socket := filepath.Join(folder, "containerd.sock")
	group := "/" + ownName + "/" + n.name
	if err := errors.Join(os.MkdirAll(filepath.Join(folder, "cni"), 0o755), makeGroups(group)); err != nil {
		return err
	}
	data := map[string]string{
		"Folder": folder, "Socket": socket, "PauseImage": pauseImage, "Bridge": bridge, "Network": network, "Gateway": gateway,
		"FirstPod": n.firstPod, "LastPod": n.lastPod, "Address": n.address, "Group": group, "Name": n.name,
	}
	for name, path := range map[string]string{
		"containerd.toml": filepath.Join(folder, "containerd.toml"), "cni.json": filepath.Join(folder, "cni", "pods.conflist"),
		"kubelet.yaml": filepath.Join(folder, "kubelet.yaml"),
	} {
		if err := c.write(path, name, data); err != nil {
			return err
		}
	}
	ctr := func(args ...string) process.Probe {
		return func(ctx context.Context) error {
			output, err := exec.CommandContext(ctx, "ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ctr %v: %w\n%s", args, err, output)
			}
			return nil
		}
	}
	err := c.startProgram(ctx, ctr("version"), "containerd-"+n.name, "containerd", "--config", filepath.Join(folder, "containerd.toml"))
	if err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(c.work, "images", "*.tar"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := ctr("images", "import", archive)(ctx); err != nil {
			return err
		}
	}
	config, err := c.kubeconfig(n.user())
	if err != nil {
		return err
	}
	return c.startProgram(ctx, process.Listening(n.address+":10250"), "kubelet-"+n.name, filepath.Join(c.binaries, "kubelet"),
		"--config="+filepath.Join(folder, "kubelet.yaml"), "--kubeconfig="+config, "--root-dir="+filepath.Join(folder, "kubelet"),
		"--cert-dir="+filepath.Join(folder, "certificates"), "--hostname-override="+n.name, "--node-ip="+n.address)
}

// makeGroups makes the cgroup below which a node puts its pods, in each hierarchy that the machine has.
func makeGroups(group string) error {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return os.MkdirAll(filepath.Join(root, group), 0o755)
	}
	hierarchies, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		// Beside them there are symbolic links to those with two names.
		if hierarchy.IsDir() {
			err = errors.Join(err, os.MkdirAll(filepath.Join(root, hierarchy.Name(), group), 0o755))
		}
	}
	return err
}
