package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// settleTime is how long the clients go on after each scenario: what it broke may be noticed late, by the end of a lease or by the
// report that follows.
const settleTime = 5 * time.Second

// world is what scenarios act on.
type world struct {
	*cluster
	release *release
	volume  string // the folder behind Redis's volume
}

// scenario is something that happens to a release under load.
type scenario struct {
	name    string
	allowed allowance
	api     bool // something is to be seen of it without a program that runs
	run     func(context.Context, *world) error
}

// scenarios run in this order, on one release and with the same sessions.
var scenarios = []scenario{
	{name: "nothing happens", run: func(ctx context.Context, _ *world) error { return pause(ctx, 10*time.Second) }},
	{name: "helm test", run: func(ctx context.Context, w *world) error {
		return w.release.helm(ctx, "test", releaseName, "--timeout", helmTimeout)
	}},
	{name: "rolling upgrade", api: true, run: func(ctx context.Context, w *world) error {
		return w.release.upgrade(ctx, "--set", "podAnnotations.release=second")
	}},
	{name: "rollback", api: true, run: func(ctx context.Context, w *world) error { return w.release.rollback(ctx) }},
	{name: "pod killed", allowed: allowance{broken: true}, run: killEachPod},
	{name: "node drained", api: true, run: drainNode},
	{name: "scale 3 to 5", api: true, run: scaleTo("5")},
	{name: "scale 5 to 2", api: true, run: scaleTo("2")},
	{name: "scale 2 to 3", api: true, run: scaleTo("3")},
	{name: "bad upgrade", run: badUpgrade},
	{name: "redis restarted", allowed: allowance{refused: true}, run: restartRedis},
	{name: "redis emptied", allowed: allowance{refused: true, lost: true}, run: emptyRedis},
}

// runScenarios starts the cluster, installs the chart, and lets the scenarios happen to it.
func runScenarios(ctx context.Context, out io.Writer, o options) (err error) {
	start := time.Now()
	c, err := startCluster(ctx, o.inside, o.fake)
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	fmt.Fprintf(out, "cluster of %d nodes: ready after %s\n", len(nodeNames), time.Since(start).Round(100*time.Millisecond))
	defer func() {
		if err != nil {
			c.explain()
		}
	}()
	w, err := install(ctx, out, c)
	if err != nil {
		return err
	}
	if o.fake {
		return playWithoutClients(ctx, out, w, o)
	}
	url, err := w.release.url(ctx)
	if err != nil {
		return err
	}
	clients, err := startTraffic(ctx, url)
	if err != nil {
		return err
	}
	defer clients.close()

	var results []result
	var errs []error
	for _, s := range scenarios {
		if ctx.Err() != nil || !o.only.MatchString(s.name) {
			continue
		}
		r, err := play(ctx, w, clients, s)
		results, errs = append(results, r), append(errs, err)
		fmt.Fprintf(out, "%s: done after %s\n", s.name, r.took.Round(100*time.Millisecond))
	}
	clients.close() // calls that had begun are finished
	printResults(out, results)
	for _, r := range results {
		errs = append(errs, r.judge())
	}
	return errors.Join(append(errs, context.Cause(ctx))...)
}

// play lets one scenario happen.
func play(ctx context.Context, w *world, clients *traffic, s scenario) (result, error) {
	r := result{scenario: s, tally: clients.begin()}
	start := time.Now()
	err := s.run(ctx, w)
	r.took = time.Since(start)
	if err = errors.Join(err, w.release.settled(ctx), pause(ctx, settleTime)); err != nil {
		err = fmt.Errorf("%s: %w", s.name, err)
	}
	return r, err
}

// playWithoutClients lets happen what can where no program runs: only what the API does with the chart's objects is seen.
func playWithoutClients(ctx context.Context, out io.Writer, w *world, o options) error {
	for _, s := range scenarios {
		if !s.api || !o.only.MatchString(s.name) {
			continue
		}
		start := time.Now()
		if err := errors.Join(s.run(ctx, w), w.release.settled(ctx)); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(out, "%s: done after %s\n", s.name, time.Since(start).Round(100*time.Millisecond))
	}
	fmt.Fprintln(out, "not run, because nothing runs: helm test, traffic, killed pods, a bad upgrade, Redis restarted")
	return nil
}

// pause lets the clients go on undisturbed.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// killEachPod kills the program of one pod after another, as running out of memory would.
func killEachPod(ctx context.Context, w *world) error {
	pods, err := w.release.pods(ctx)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if err := w.kill(pod); err != nil {
			return err
		}
		// The old state is still reported for a moment.
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		if err := w.release.settled(ctx); err != nil {
			return err
		}
	}
	return nil
}

// drainNode evicts all pods of a node, as before its kernel is updated, then lets it have pods again.
func drainNode(ctx context.Context, w *world) error {
	node := nodeNames[0].name
	if _, err := w.kubectl(ctx, "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s"); err != nil {
		return err
	}
	if err := w.release.settled(ctx); err != nil {
		return err
	}
	_, err := w.kubectl(ctx, "uncordon", node)
	return err
}

func scaleTo(replicas string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		return w.release.upgrade(ctx, "--set", "replicaCount="+replicas)
	}
}

// badUpgrade rolls out replicas that cannot reach their Redis: they never become ready, so Helm gives up and goes back.
func badUpgrade(ctx context.Context, w *world) error {
	before, err := w.release.pods(ctx)
	if err != nil {
		return err
	}
	err = w.release.upgrade(ctx, "--timeout", "20s", "--rollback-on-failure", "--set", "extraEnv[0].name=SHADOWCAT_REDIS",
		"--set", "extraEnv[0].value=redis://127.0.0.1:1")
	if err == nil {
		return errors.New("helm took replicas that cannot reach Redis for ready")
	}
	after, err := w.release.pods(ctx)
	if err != nil {
		return err
	}
	if strings.Join(names(before), " ") != strings.Join(names(after), " ") {
		return fmt.Errorf("the pods before were %v, and after it was undone %v", names(before), names(after))
	}
	return nil
}

// restartRedis deletes Redis's pod; the next one finds what was on its volume.
func restartRedis(ctx context.Context, w *world) error {
	_, err := w.kubectl(ctx, "delete", "pod", "--namespace", namespace, "--selector", w.release.redisSelector(), "--timeout=120s")
	return err
}

// emptyRedis is the same, but what was on the volume is gone: so are all sessions, and clients must be told so.
func emptyRedis(ctx context.Context, w *world) error {
	entries, err := os.ReadDir(w.volume)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(w.volume, entry.Name())))
	}
	return errors.Join(err, restartRedis(ctx, w))
}
