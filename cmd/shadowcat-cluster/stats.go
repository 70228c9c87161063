package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
)

func newStatsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "stats",
		Short: "Count the cluster's sessions",
		Long: `Counts the sessions of the cluster, at the same cost however many there are.

JSON: {"live", "due", "sessions": {STATUS: records kept}, "created_total", "ended_total": {STATUS: n}}. due
are live sessions past their end that nobody has ended yet; totals count since the store was first used.`,
		Example: `  shadowcat-cluster stats
  shadowcat-cluster stats --redis redis://redis.internal:6379 --output json`,
		Args: cobra.NoArgs,
	}
	load := addSettings(command, settings.ScopeStore)
	output := addOutput(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		s, err := load()
		if err := errors.Join(err, output.check()); err != nil {
			return err
		}
		return withSessions(command.Context(), s, func(manager *cluster.Manager) error {
			stats, err := manager.Stats(command.Context())
			if err != nil {
				return err
			}
			return output.write(command, newStatsView(stats), func() string { return statsTable(stats) })
		})
	}
	return command
}
