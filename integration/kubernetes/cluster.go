package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/process"
)

//go:embed config
var configs embed.FS

// The network of the cluster. It is a network namespace's own: nobody else is there, so nothing else can have these addresses.
const (
	bridge   = "shadowcat0"
	network  = "10.244.0.0/16"
	gateway  = "10.244.0.1" // the bridge's own address, where names are asked for
	services = "10.96.0.0/16"
)

// namespace is where the chart is installed.
const namespace = "mcp"

// startTime bounds how long one part of the cluster takes to start, on a machine that has other things to do.
const startTime = 3 * time.Minute

// Users of the API, who are their own tokens.
const (
	adminUser    = "admin"
	deployerUser = "deployer" // may do in its namespace what a namespace's owner may
)

// cluster is a running Kubernetes.
type cluster struct {
	work, binaries string
	parts          []part // in the order of their start
}

// part is one process of the cluster.
type part struct {
	name string
	*process.Process
}

// startCluster starts the control plane, the network and two nodes, and waits until all are ready. The caller must call close.
func startCluster(ctx context.Context, work string, fake bool) (*cluster, error) {
	folder, err := os.ReadFile(filepath.Join(work, binariesFile))
	if err != nil {
		return nil, err
	}
	c := &cluster{work: work, binaries: string(folder)}
	steps := []func(context.Context) error{c.startNetwork, c.startControlPlane, c.startNames, c.startNodes, c.startServices}
	if fake {
		steps = []func(context.Context) error{c.startControlPlane, c.startFakeNodes}
	}
	for _, start := range steps {
		if err := start(ctx); err != nil {
			return c, err
		}
	}
	return c, nil
}

// close ends all processes, the newest first, and keeps the ends of their logs. What they have made ends with the namespaces.
func (c *cluster) close() {
	for _, p := range slices.Backward(c.parts) {
		p.Kill()
		_ = os.WriteFile(filepath.Join(c.work, "log", p.name+".log"), []byte(p.Output()), 0o644) // for a person, should there be one
	}
}

// start starts a part of the cluster and waits for it.
func (c *cluster) start(ctx context.Context, probe process.Probe, name string, args ...string) error {
	return c.startProgram(ctx, probe, name, filepath.Join(c.binaries, name), args...)
}

func (c *cluster) startProgram(ctx context.Context, probe process.Probe, name, path string, args ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, errors.New("it had three minutes"))
	defer cancel()
	p, err := process.Start(process.Command{Name: name, Path: path, Args: args})
	if err != nil {
		return err
	}
	c.parts = append(c.parts, part{name, p})
	return p.WaitReady(ctx, probe)
}

func (c *cluster) startNetwork(ctx context.Context) error {
	var script strings.Builder
	script.WriteString("ip link add " + bridge + " type bridge && ip addr add " + gateway + "/16 dev " + bridge + " && ip link set " + bridge + " up && " +
		"ip route add " + services + " dev " + bridge + " && sysctl -qw net.ipv4.ip_forward=1")
	for _, n := range nodeNames {
		script.WriteString(" && ip addr add " + n.address + "/16 dev " + bridge)
	}
	if output, err := exec.CommandContext(ctx, "sh", "-c", script.String()).CombinedOutput(); err != nil {
		return fmt.Errorf("make the bridge: %w\n%s", err, output)
	}
	return nil
}

func (c *cluster) startControlPlane(ctx context.Context) error {
	key, err := c.credentials()
	if err != nil {
		return err
	}
	err = c.start(ctx, process.Answering("http://127.0.0.1:2379/health", http.StatusOK), "etcd",
		"--data-dir="+filepath.Join(c.work, "etcd"), "--unsafe-no-fsync", "--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380")
	if err != nil {
		return err
	}
	err = c.start(ctx, process.Listening("127.0.0.1:6443"), "kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379", "--bind-address=127.0.0.1", "--advertise-address="+gateway, "--secure-port=6443", "--cert-dir="+filepath.Join(c.work, "certificates"),
		"--service-cluster-ip-range="+services, "--endpoint-reconciler-type=none", "--kubelet-preferred-address-types=InternalIP",
		"--token-auth-file="+c.tokensFile(), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+key, "--service-account-signing-key-file="+key)
	if err != nil {
		return err
	}
	if err := eventually(ctx, startTime, c.succeeds("get", "--raw", "/readyz")); err != nil {
		return err
	}
	admin, err := c.kubeconfig(adminUser)
	if err != nil {
		return err
	}
	err = c.start(ctx, process.Listening("127.0.0.1:10257"), "kube-controller-manager", "--kubeconfig="+admin, "--leader-elect=false",
		"--bind-address=127.0.0.1", "--service-account-private-key-file="+key)
	if err != nil {
		return err
	}
	return c.start(ctx, process.Listening("127.0.0.1:10259"), "kube-scheduler", "--kubeconfig="+admin, "--leader-elect=false", "--bind-address=127.0.0.1")
}

// startNames starts what pods ask for names.
func (c *cluster) startNames(ctx context.Context) error {
	admin, err := c.kubeconfig(adminUser)
	if err != nil {
		return err
	}
	corefile := filepath.Join(c.work, "Corefile")
	if err := c.write(corefile, "Corefile", map[string]string{"Gateway": gateway, "Kubeconfig": admin}); err != nil {
		return err
	}
	return c.start(ctx, process.Answering("http://127.0.0.1:8181/ready", http.StatusOK), "coredns", "-conf", corefile)
}

// startServices starts what makes addresses of Services work. It wants to find its node.
func (c *cluster) startServices(ctx context.Context) error {
	proxy, err := c.kubeconfig("system:kube-proxy")
	if err != nil {
		return err
	}
	// It serves both nodes, which share a network namespace, under the name of the first. All pods are on one bridge: an answer would
	// not come back the way that the request was sent on, unless it seems to come from the bridge.
	return c.start(ctx, process.Listening("127.0.0.1:10249"), "kube-proxy", "--kubeconfig="+proxy, "--proxy-mode=nftables", "--masquerade-all",
		"--hostname-override="+nodeNames[0].name, "--cluster-cidr="+network, "--conntrack-max-per-core=0", "--conntrack-min=0",
		"--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0", "--metrics-bind-address=127.0.0.1:10249",
		"--healthz-bind-address=127.0.0.1:10256")
}

// kubectl runs kubectl as the administrator and returns what it printed.
func (c *cluster) kubectl(ctx context.Context, args ...string) (string, error) {
	config, err := c.kubeconfig(adminUser)
	if err != nil {
		return "", err
	}
	return c.run(ctx, "kubectl", append([]string{"--kubeconfig", config}, args...)...)
}

// apply creates or changes the objects of a template.
func (c *cluster) apply(ctx context.Context, name string, data any) error {
	path := filepath.Join(c.work, name)
	if err := c.write(path, name, data); err != nil {
		return err
	}
	_, err := c.kubectl(ctx, "apply", "--server-side", "-f", path)
	return err
}

// eventually looks twice a second until there is no error any more.
func eventually(ctx context.Context, limit time.Duration, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// succeeds looks whether kubectl succeeds.
func (c *cluster) succeeds(args ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := c.kubectl(ctx, args...)
		return err
	}
}

// run runs one of the binaries, and returns what it printed.
func (c *cluster) run(ctx context.Context, name string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, filepath.Join(c.binaries, name), args...)
	// Nothing of the user's: neither settings nor caches.
	command.Env = []string{"HOME=" + c.work, "PATH=" + os.Getenv("PATH")}
	var output, complaints bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaints
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, output.String(), complaints.String())
	}
	return output.String(), nil
}

// write writes a file from a template.
func (c *cluster) write(path, name string, data any) error {
	parsed, err := template.ParseFS(configs, "config/"+name)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, data); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o600)
}
