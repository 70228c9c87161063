package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
)

// conditions are the flags that select sessions.
type conditions struct {
	status, principal  string
	idleFor, olderThan durationFlag
}

func addConditions(flags *pflag.FlagSet) *conditions {
	c := &conditions{}
	flags.StringVar(&c.status, "status", "", "Only sessions of this status: "+statusList())
	flags.StringVar(&c.principal, "principal", "", "Only sessions of this principal, as session show tells it")
	flags.Var(&c.idleFor, "idle-for", "Only sessions whose last activity was at least so long ago")
	flags.Var(&c.olderThan, "older-than", "Only sessions that were created at least so long ago")
	return c
}

// apply adds the conditions to a query. A status that only ended sessions have selects those.
func (c *conditions) apply(q *cluster.Query) error {
	q.Status, q.Principal = cluster.Status(c.status), cluster.Principal(c.principal)
	q.IdleFor, q.OlderThan = time.Duration(c.idleFor), time.Duration(c.olderThan)
	var principalErr error
	if !q.Principal.Valid() {
		principalErr = usage(fmt.Errorf("--principal: %q is no principal: want 1 to 64 letters, digits, hyphens and underscores", c.principal))
	}
	return errors.Join(c.applyStatus(q), principalErr)
}

func (c *conditions) applyStatus(q *cluster.Query) error {
	if c.status == "" {
		return nil
	}
	if !q.Status.Valid() {
		return usage(fmt.Errorf("--status: %q is none of %s", c.status, statusList()))
	}
	if q.Ended && q.Status.Live() {
		return usage(errors.New("--status: no " + c.status + " session has ended; leave --ended out"))
	}
	q.Ended = q.Status.Ended()
	return nil
}

func statusList() string {
	names := make([]string, 0, len(cluster.Statuses()))
	for _, status := range cluster.Statuses() {
		names = append(names, string(status))
	}
	return strings.Join(names, ", ")
}

// durationFlag is a flag that takes a duration in the form of the settings, such as 90s, 30m or 7d.
type durationFlag time.Duration

// Set takes the flag's text.
func (f *durationFlag) Set(text string) error {
	d, err := settings.ParseDuration(text)
	*f = durationFlag(d)
	return err
}

// String returns the duration, nothing when there is none.
func (f *durationFlag) String() string {
	if f == nil || *f == 0 {
		return ""
	}
	return time.Duration(*f).String()
}

// Type is the placeholder of the value in help texts.
func (f *durationFlag) Type() string { return "duration" }
