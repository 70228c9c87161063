package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/redisstore"
	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// noLeaderError is what leader says when there is none.
type noLeaderError struct{}

// Error says what may be the reason.
func (noLeaderError) Error() string {
	return "nobody leads: no replica runs that may, or the last leader has just ended"
}

// Is makes it an ErrNotFound, for the exit status.
func (noLeaderError) Is(target error) bool { return target == cluster.ErrNotFound }

// leaderView is the JSON of leader.
type leaderView struct {
	Leader    *string `json:"leader"` // null: nobody leads
	Epoch     int64   `json:"epoch"`
	ExpiresIn float64 `json:"expires_in_seconds"`
	Lag       float64 `json:"lag_seconds"`
	Due       int64   `json:"due"`
}

func newLeaderCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "leader",
		Short: "Show which replica cleans up",
		Long: `Shows which replica cleans up, the epoch of its term, how long its lock lasts unless it is renewed (it
renews it three times as often), and how far behind the cleanup is. Exit status 3: nobody leads.

JSON: {"leader": INCARNATION or null, "epoch", "expires_in_seconds", "lag_seconds", "due"}.`,
		Example: `  shadowcat-cluster leader
  shadowcat-cluster leader --output json | jq -r .leader`,
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
			leads, err := store.Leadership(command.Context())
			if err != nil {
				return err
			}
			stats, err := manager.Stats(command.Context())
			if err != nil {
				return err
			}
			view := leaderView{Epoch: leads.Epoch, ExpiresIn: leads.ExpiresIn.Seconds(), Lag: stats.Lag.Seconds(), Due: stats.Due}
			if leads.Holder != "" {
				incarnation := sweeper.HolderIncarnation(leads.Holder)
				view.Leader = &incarnation
			}
			if err := output.write(command, view, func() string { return leaderTable(view) }); err != nil {
				return err
			}
			if view.Leader == nil {
				return noLeaderError{}
			}
			return nil
		})
	}
	return command
}

func leaderTable(v leaderView) string {
	t := newTable()
	if v.Leader == nil {
		return "Nobody leads."
	}
	t.AppendRow([]any{"leader", *v.Leader})
	t.AppendRow([]any{"epoch", v.Epoch})
	t.AppendRow([]any{"lock", fmt.Sprintf("%.1f s unless renewed", v.ExpiresIn)})
	t.AppendRow([]any{"lag", fmt.Sprintf("%.1f s, %d sessions past their end", v.Lag, v.Due)})
	return render(t)
}
