// Package deployment runs what users run in production, in small: several replicas on one store, behind a balancer that sends
// each request to the next.
package deployment

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tapwire/shadowcat-cluster/integration/process"
	"github.com/tapwire/shadowcat-cluster/integration/replica"
	"github.com/tapwire/shadowcat-cluster/integration/roundrobin"
)

// startTries is how often a deployment is begun anew when a port was taken by another program in between.
const startTries = 3

// Options say what to run.
type Options struct {
	// Executable is the command, built by binary.Build from binary.ShadowcatCluster.
	Executable string
	// Replicas is how many. Default: 3.
	Replicas int
	// RedisURL is the store.
	RedisURL string
	// Upstream is the MCP server behind the replicas, served at /mcp.
	Upstream string
	// Args are further arguments of each `serve`.
	Args []string
}

// Deployment is a running set of replicas behind a front. The front's backends and Replicas have the same order.
type Deployment struct {
	Front    *roundrobin.Front
	Replicas []*replica.Replica
}

// Start starts the replicas and the front and waits until all replicas are ready. The caller must call Close.
func Start(ctx context.Context, options Options) (*Deployment, error) {
	var failed error
	for range startTries {
		d, err := start(ctx, options)
		if err == nil {
			return d, nil
		}
		failed = errors.Join(err, d.Close())
		if !errors.Is(failed, process.ErrAddressInUse) {
			break
		}
	}
	return nil, failed
}

func start(ctx context.Context, options Options) (*Deployment, error) {
	if options.Replicas == 0 {
		options.Replicas = 3
	}
	d := &Deployment{}
	var addresses []string
	for i := range options.Replicas {
		r, err := replica.New(replica.Options{
			Executable: options.Executable,
			ID:         fmt.Sprintf("replica-%d", i),
			RedisURL:   options.RedisURL,
			Upstreams:  []string{options.Upstream},
			Args:       options.Args,
		})
		if err != nil {
			return d, err
		}
		d.Replicas = append(d.Replicas, r)
		addresses = append(addresses, r.Address())
	}
	if err := d.each(func(r *replica.Replica) error { return r.Start(ctx) }); err != nil {
		return d, err
	}
	var err error
	d.Front, err = roundrobin.Start(addresses...)
	return d, err
}

// each calls do for all replicas at the same time.
func (d *Deployment) each(do func(*replica.Replica) error) error {
	errs := make([]error, len(d.Replicas))
	var group sync.WaitGroup
	for i, r := range d.Replicas {
		group.Go(func() { errs[i] = do(r) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// URL is the MCP endpoint behind the front.
func (d *Deployment) URL() string { return d.Front.URL() }

// Stop ends all replicas as a rolling update would end each, all at once, and waits for them. The front stays.
func (d *Deployment) Stop() error { return d.each((*replica.Replica).Stop) }

// Start starts all replicas again and waits until they are ready.
func (d *Deployment) Start(ctx context.Context) error {
	return d.each(func(r *replica.Replica) error { return r.Start(ctx) })
}

// Close ends everything. Replicas are killed: what a clean stop does is for those who want to see it to call Stop before.
func (d *Deployment) Close() error {
	var err error
	if d.Front != nil {
		err = d.Front.Close()
	}
	for _, r := range d.Replicas {
		r.Kill()
	}
	return err
}
