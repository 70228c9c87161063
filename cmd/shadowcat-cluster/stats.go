package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

func newStatsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "stats",
		Short: "Count the cluster's sessions",
		Long: `Counts the sessions of the cluster, at the same cost however many there are. Says on stderr when
nothing was ever kept under the prefix.

JSON: {"live", "due", "sessions": {STATUS: records kept}, "created_total", "ended_total": {STATUS: n}}. due
are live sessions past their end that nobody has ended yet; totals count since the store was first used.`,
		Example: `  shadowcat-cluster stats
  shadowcat-cluster stats --redis redis://redis.internal:6379 --output json`,
		Args: noArgs,
	}
	load := addSettings(command, settings.ScopeStore)
	output := addOutput(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		s, err := load()
		if err := errors.Join(err, output.check()); err != nil {
			return err
		}
		return withStore(command.Context(), s, func(store *redisstore.Store, manager *cluster.Manager) error {
			stats, err := manager.Stats(command.Context())
			if err != nil {
				return err
			}
			if err := noteIfUnused(command, s.Prefix, store, stats); err != nil {
				return err
			}
			return output.write(command, newStatsView(stats), func() string { return statsTable(stats) })
		})
	}
	return command
}

// noteIfUnused says on stderr when nothing was ever kept under a prefix, as far as that can be told: it may be mistyped.
func noteIfUnused(command *cobra.Command, prefix string, store *redisstore.Store, stats cluster.Stats) error {
	if stats.Created > 0 {
		return nil
	}
	roster, err := store.Roster(command.Context())
	if err != nil || len(roster) > 0 {
		return err
	}
	_, err = fmt.Fprintf(command.ErrOrStderr(), "Nothing is there under the prefix %q: no session was ever created, and no replica has given a sign of life in the last ten minutes.\n", prefix)
	return err
}
