package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// release is the installed chart.
type release struct {
	*cluster
	values string // its file of values
}

const (
	releaseName = "shadowcat"
	chartFolder = "helm/shadowcat-cluster"
	helmTimeout = "240s"
	settleLimit = 4 * time.Minute
)

// install brings what the chart finds in a cluster, and installs it.
func install(ctx context.Context, out io.Writer, c *cluster) (*world, error) {
	w := &world{cluster: c, release: &release{cluster: c, values: filepath.Join(c.work, "values.yaml")}, volume: filepath.Join(c.work, "volume")}
	// Kubernetes does not change the owner of a folder of the node: anybody may write to it.
	if err := errors.Join(os.Mkdir(w.volume, 0o755), os.Chmod(w.volume, 0o777)); err != nil {
		return nil, err
	}
	data := map[string]string{"Namespace": namespace, "UpstreamImage": upstreamImage, "Volume": w.volume, "Version": imageVersion, "Redis": redisName}
	if err := errors.Join(c.apply(ctx, "world.yaml", data), c.write(w.release.values, "values.yaml", data)); err != nil {
		return nil, err
	}
	if _, err := c.kubectl(ctx, "rollout", "status", "--namespace", namespace, "deployment/upstream", "--timeout=180s"); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := w.release.helm(ctx, "install", releaseName, chartFolder, "--values", w.release.values, "--wait", "--timeout", helmTimeout); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "helm install --wait: done after %s\n", time.Since(start).Round(100*time.Millisecond))
	return w, nil
}

// helm runs helm as the owner of the namespace.
func (r *release) helm(ctx context.Context, args ...string) error {
	config, err := r.kubeconfig(deployerUser)
	if err != nil {
		return err
	}
	_, err = r.run(ctx, "helm", append([]string{"--kubeconfig", config, "--namespace", namespace}, args...)...)
	return err
}

// upgrade changes the release, with the values that it has and further ones.
func (r *release) upgrade(ctx context.Context, args ...string) error {
	return r.helm(ctx, append([]string{"upgrade", releaseName, chartFolder, "--reuse-values", "--wait", "--timeout", helmTimeout}, args...)...)
}

// rollback goes back to the revision before.
func (r *release) rollback(ctx context.Context) error {
	return r.helm(ctx, "rollback", releaseName, "--wait", "--timeout", helmTimeout)
}

// url is where clients reach the replicas: the address of the Service.
func (r *release) url(ctx context.Context) (string, error) {
	text, err := r.kubectl(ctx, "get", "service", "--namespace", namespace, "--selector", proxySelector,
		"--output", `jsonpath={range .items[*]}{.spec.clusterIP} {.spec.ports[0].name} {.spec.ports[0].port}{"\n"}{end}`)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[1] == "http" {
			return "http://" + fields[0] + ":" + fields[2] + "/mcp", nil
		}
	}
	return "", fmt.Errorf("no Service of the release has a port called http: %s", text)
}

// Labels of the release's pods.
const proxySelector = "app.kubernetes.io/instance=" + releaseName + ",app.kubernetes.io/component=proxy"

func (r *release) redisSelector() string {
	return "app.kubernetes.io/instance=" + releaseName + ",app.kubernetes.io/component=redis"
}

// pod is what scenarios need to know of one.
type pod struct{ name, uid string }

func names(pods []pod) []string {
	var all []string
	for _, p := range pods {
		all = append(all, p.name)
	}
	return all
}

// pods returns the replicas that are not on their way out, by name.
func (r *release) pods(ctx context.Context) ([]pod, error) {
	text, err := r.kubectl(ctx, "get", "pods", "--namespace", namespace, "--selector", proxySelector, "--output", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string     `json:"name"`
				UID               string     `json:"uid"`
				DeletionTimestamp *time.Time `json:"deletionTimestamp"`
			} `json:"metadata"`
			Status struct {
				Phase string `json:"phase"`
			} `json:"status"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, err
	}
	var pods []pod
	for _, item := range list.Items {
		if item.Metadata.DeletionTimestamp == nil && item.Status.Phase == "Running" {
			pods = append(pods, pod{item.Metadata.Name, item.Metadata.UID})
		}
	}
	slices.SortFunc(pods, func(a, b pod) int { return strings.Compare(a.name, b.name) })
	return pods, nil
}

// settled waits until every replica and Redis are ready, and those that had to go are gone.
func (r *release) settled(ctx context.Context) error {
	return eventually(ctx, settleLimit, func(ctx context.Context) error {
		text, err := r.kubectl(ctx, "get", "pods", "--namespace", namespace, "--selector", "app.kubernetes.io/instance="+releaseName+",app.kubernetes.io/component!=test",
			"--output", `jsonpath={range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if !strings.HasSuffix(strings.TrimSpace(line), " True") {
				return fmt.Errorf("a pod is not ready, or not gone: %s", line)
			}
		}
		_, err = r.kubectl(ctx, "rollout", "status", "--namespace", namespace, "--selector", proxySelector, "deployment", "--watch=false")
		return err
	})
}

// kill ends the program of a replica at once. This program's namespace of process ids holds those of all pods.
func (w *world) kill(p pod) error {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, folder := range processes {
		// One that has just ended has neither.
		line, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
		groups, _ := os.ReadFile(filepath.Join(folder, "cgroup"))
		if !bytes.HasPrefix(line, []byte("/usr/bin/shadowcat-cluster\x00serve")) || !bytes.Contains(groups, []byte("pod"+p.uid)) {
			continue
		}
		id, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			return err
		}
		return syscall.Kill(id, syscall.SIGKILL)
	}
	return fmt.Errorf("kill %s: it has no process", p.name)
}

// explain writes to the logs how things are, for whoever has to find out what went wrong. The context of the run may be over.
func (c *cluster) explain() {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, p := range c.parts {
		if !p.Running() {
			fmt.Fprintf(&out, "%s has ended with status %d\n", p.name, p.ExitCode())
		}
	}
	for _, args := range [][]string{
		{"get", "nodes,pods,persistentvolumes,persistentvolumeclaims,events", "--all-namespaces", "--output=wide"},
		{"describe", "pods", "--namespace", namespace},
		{"logs", "--namespace", namespace, "--selector", proxySelector, "--tail=300", "--prefix"},
	} {
		text, err := c.kubectl(ctx, args...)
		fmt.Fprintln(&out, text)
		if err != nil {
			fmt.Fprintln(&out, err)
		}
	}
	_ = os.WriteFile(filepath.Join(c.work, "log", "cluster.txt"), out.Bytes(), 0o644) // the error that is explained is told anyway
}
