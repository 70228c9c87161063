package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// replicasView is the JSON of replicas.
type replicasView struct {
	Replicas  []replicaView `json:"replicas"`
	Differing []string      `json:"differing_limits"` // the settings about which live replicas disagree
}

// replicaView is the JSON of one replica. What it has not told is null.
type replicaView struct {
	Incarnation  string               `json:"incarnation"` // its id, a slash, and what is this run's own
	Alive        bool                 `json:"alive"`
	HeartbeatAge float64              `json:"heartbeat_age_seconds"`
	Version      *string              `json:"version"`
	Sessions     *int64               `json:"sessions"`
	Streams      *int64               `json:"streams"`
	LimitsDigest *string              `json:"limits_digest"`
	Limits       cluster.SharedLimits `json:"limits"`
}

func newReplicasCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "replicas",
		Short: "List the replicas, and whether they agree",
		Long: `Lists the replicas that have given a sign of life in the last ten minutes and have not stopped in order since.
Each gives one every second, and is taken for dead 5 s after the last. Every 5 s it tells its version,
how many sessions it has served of late, how many streams its clients have open, and the limits that
all replicas must have in common: LIMITS is a digest of those, the same where they are the same.

JSON: {"replicas": [{"incarnation", "alive", "heartbeat_age_seconds", "version", "sessions", "streams",
"limits_digest", "limits": {SETTING: value}}], "differing_limits": [SETTING]}, null for what a replica has
not told.`,
		Example: `  shadowcat-cluster replicas
  shadowcat-cluster replicas --output json | jq .differing_limits`,
		Args: noArgs,
	}
	load := addSettings(command, settings.ScopeStore)
	output := addOutput(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		s, err := load()
		if err := errors.Join(err, output.check()); err != nil {
			return err
		}
		return withStore(command.Context(), s, func(store *redisstore.Store, _ *cluster.Manager) error {
			roster, err := store.Roster(command.Context())
			if err != nil {
				return err
			}
			return output.write(command, newReplicasView(roster), func() string { return replicasTable(roster) })
		})
	}
	return command
}

// differingLimits names the settings about which live replicas disagree, in order.
func differingLimits(roster []redisstore.RosterEntry) []string {
	names := []string{}
	var before []cluster.SharedLimits
	for _, e := range roster {
		if !e.IsAlive || e.About == nil {
			continue
		}
		for _, other := range before {
			names = append(names, other.Differ(e.About.Limits)...)
		}
		before = append(before, e.About.Limits)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func newReplicasView(roster []redisstore.RosterEntry) replicasView {
	view := replicasView{Replicas: make([]replicaView, 0, len(roster)), Differing: differingLimits(roster)}
	for _, e := range roster {
		r := replicaView{Incarnation: e.Incarnation, Alive: e.IsAlive, HeartbeatAge: e.Silent.Seconds()}
		if a := e.About; a != nil {
			digest := a.Limits.Digest()
			r.Version, r.Sessions, r.Streams, r.LimitsDigest, r.Limits = &a.Version, &a.Sessions, &a.Streams, &digest, a.Limits
		}
		view.Replicas = append(view.Replicas, r)
	}
	return view
}

func replicasTable(roster []redisstore.RosterEntry) string {
	if len(roster) == 0 {
		return "No replica has given a sign of life under this prefix in the last ten minutes."
	}
	t := newTable("REPLICA", "HEARTBEAT", "VERSION", "SESSIONS", "STREAMS", "LIMITS")
	for _, e := range roster {
		heartbeat := fmt.Sprintf("%.1f s ago", e.Silent.Seconds())
		if !e.IsAlive {
			heartbeat += " (dead)"
		}
		row := table.Row{visible(e.Incarnation), heartbeat, "-", "-", "-", "-"}
		if a := e.About; a != nil {
			row = table.Row{visible(e.Incarnation), heartbeat, visible(a.Version), a.Sessions, a.Streams, a.Limits.Digest()}
		}
		t.AppendRow(row)
	}
	t.SetColumnConfigs(right(4, 5))
	text := render(t)
	if differ := differingLimits(roster); len(differ) > 0 {
		text += "\n\nLive replicas disagree about " + strings.Join(differ, ", ") + ": give all of them the same."
	}
	return text
}
