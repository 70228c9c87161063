package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/integration/deployment"
	"github.com/tapwire/shadowcat-cluster/integration/everything"
	"github.com/tapwire/shadowcat-cluster/integration/issuer"
	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

// revision is a set of requirements of the runner, and what the everything-server is known to reach in it.
type revision struct {
	name      string
	stateless bool
	// passed and failed are the counts of a direct run with the pinned versions. They guard against a runner that runs nothing,
	// which would find no difference either.
	passed, failed int
}

var revisions = []revision{
	{name: "2025-11-25", passed: 82},
	// All that fail are tasks-*: an extension that the everything-server does not have and that is not scored.
	{name: "2026-07-28", stateless: true, passed: 165, failed: 30},
}

func revisionNames() []string {
	var names []string
	for _, r := range revisions {
		names = append(names, r.name)
	}
	return names
}

// bench holds what all runs share.
type bench struct {
	dir        string // commands and results, temporary
	runner     runner
	everything string
	product    string
	log        io.Writer // the runner's own output
}

func (b *bench) close() {
	// A temporary folder that stays does no harm.
	_ = os.RemoveAll(b.dir)
}

// compare runs one revision both ways, prints the two columns and says whether they differ.
func (b *bench) compare(ctx context.Context, out io.Writer, r revision) error {
	start := time.Now()
	direct, err := b.direct(ctx, r)
	if err != nil {
		return fmt.Errorf("directly: %w", err)
	}
	proxied, served, err := b.throughReplicas(ctx, r)
	if err != nil {
		return fmt.Errorf("through three replicas: %w", err)
	}
	differences := diff(direct, proxied)
	report(out, r, direct, proxied, differences)
	fmt.Fprintf(out, "requests served by each replica: %v; both runs took %s\n", served, time.Since(start).Round(time.Second/10))

	if passed, failed := direct.passed(), direct.failed(); passed != r.passed || failed != r.failed {
		return fmt.Errorf("directly %d passed and %d failed, want %d and %d: has a pinned version changed?",
			passed, failed, r.passed, r.failed)
	}
	for replica, requests := range served {
		if requests == 0 {
			return fmt.Errorf("replica %d served nothing: the run proves nothing about several replicas", replica)
		}
	}
	if n := len(unexpected(differences)); n > 0 {
		return fmt.Errorf("%w: %d checks differ", errDifferent, n)
	}
	return nil
}

// direct runs the runner against a fresh everything-server.
func (b *bench) direct(ctx context.Context, r revision) (results, error) {
	upstream, err := everything.Start(ctx, everything.Options{Executable: b.everything, Stateless: r.stateless})
	if err != nil {
		return nil, err
	}
	found, err := b.runAgainst(ctx, upstream.URL(), r, "direct")
	return found, errors.Join(err, upstream.Close())
}

// throughReplicas runs the runner against three replicas between it and a fresh everything-server. It returns how many requests
// each replica served, too. The replicas record everything and ask for tokens: it changes nothing that a client sees which has one.
func (b *bench) throughReplicas(ctx context.Context, r revision) (found results, served []int, err error) {
	store, err := redisserver.Start(ctx, redisserver.Options{})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	upstream, err := everything.Start(ctx, everything.Options{Executable: b.everything, Stateless: r.stateless})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, upstream.Close()) }()
	signer := issuer.Start()
	defer signer.Close()
	d, err := deployment.Start(ctx, deployment.Options{
		Executable: b.product, RedisURL: store.URL(), Upstream: upstream.URL(),
		Args: []string{ // the runner opens more sessions a second than one principal may by default
			"--recording", "full", "--create-rate-per-principal", "0", "--auth-mode", "jwt", "--auth-issuer", signer.URL(), "--auth-audience", issuer.Audience, "--auth-resource", issuer.Audience,
		},
	})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()

	if status, err := answerOf(ctx, d.URL()); err != nil || status != http.StatusUnauthorized {
		return nil, nil, errors.Join(fmt.Errorf("without a token the replicas answer %d, want 401", status), err)
	}
	d.Front.SignIn(signer.Token("conformance"))
	found, err = b.runAgainst(ctx, d.URL(), r, "replicas")
	served = make([]int, len(d.Replicas))
	for _, exchange := range d.Front.Trace() {
		if exchange.Backend >= 0 {
			served[exchange.Backend]++
		}
	}
	for i, replica := range d.Replicas {
		if strings.Contains(replica.Output(), "panic: ") {
			err = errors.Join(err, fmt.Errorf("replica %d panicked:\n%s", i, replica.Output()))
		}
	}
	return found, served, err
}

// answerOf is the status of the answer to a plain request.
func answerOf(ctx context.Context, url string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// runAgainst runs the runner against one URL and reads what it found.
func (b *bench) runAgainst(ctx context.Context, url string, r revision, way string) (results, error) {
	dir := filepath.Join(b.dir, r.name+"-"+way)
	output, failed := b.runner.run(ctx, url, r.name, dir)
	fmt.Fprintf(b.log, "=== %s, %s\n%s\n", r.name, way, output)
	// The runner's exit status tells about scored checks only; its results decide, if there are any.
	found, err := read(dir)
	if err != nil {
		return nil, errors.Join(err, failed)
	}
	if len(found) == 0 {
		return nil, errors.Join(fmt.Errorf("the runner found nothing; it printed:\n%s", output), failed)
	}
	return found, nil
}
