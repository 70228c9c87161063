package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
	"github.com/tapwire/shadowcat-cluster/redisstore"
)

// The page sizes of session list.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

func newSessionCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "session",
		Short: "List, show and end sessions",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("session: say what to do: list, show, frames, terminate or cleanup")
			}
			return fmt.Errorf("session: unknown command %q; want list, show, frames, terminate or cleanup", args[0])
		},
		// The flags are those of the commands below: without one of these, that is what is missing, and not the flag.
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		RunE:               func(*cobra.Command, []string) error { return nil }, // never reached; without it cobra would not call Args
	}
	command.AddCommand(newSessionListCommand(), newSessionShowCommand(), newSessionFramesCommand(), newSessionTerminateCommand(), newSessionCleanupCommand())
	return command
}

func newSessionListCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "list",
		Short: "List sessions, the longest idle first",
		Long: `Lists live sessions, the longest idle first (of one principal: the oldest first), or the records of ended
ones, those purged next first. A session past its end is shown as expired, with its end, even before it
is swept away. Conditions narrow the list: all of them must hold.

JSON: {"sessions": [...], "next": CURSOR}. Times are RFC 3339 in UTC. deadline_at is when a live session
ends unless something happens, when one past its end has ended, and when an ended one's record is
purged; null is never. next is null on the last page. The principal and the name of an upstream may be
empty.`,
		Example: `  shadowcat-cluster session list
  shadowcat-cluster session list --ended --limit 1000
  shadowcat-cluster session list --status active --idle-for 10m
  shadowcat-cluster session list --output json | jq -r '.sessions[].id'`,
		Args: noArgs,
	}
	load := addSettings(command, settings.ScopeStore)
	output := addOutput(command)
	q := cluster.Query{Limit: defaultLimit}
	flags := command.Flags()
	conditions := addConditions(flags)
	flags.BoolVar(&q.Ended, "ended", false, "List ended sessions instead of live ones")
	addNumber(flags, &q.Limit, "limit", maxLimit, "How many sessions to list")
	flags.StringVar(&q.Cursor, "cursor", "", "Go on where the page before ended: its next value")
	command.RunE = func(command *cobra.Command, _ []string) error {
		s, err := load()
		var limitErr error
		if q.Limit < 1 || q.Limit > maxLimit {
			limitErr = usage(fmt.Errorf("--limit: %d is not in 1 to %d sessions", q.Limit, maxLimit))
		}
		if err := errors.Join(err, limitErr, conditions.apply(&q), output.check()); err != nil {
			return err
		}
		return withSessions(command.Context(), s, func(manager *cluster.Manager) error {
			page, err := listAll(command.Context(), manager, q)
			if errors.Is(err, cluster.ErrInvalidCursor) {
				return usage(fmt.Errorf("--cursor: %w", cluster.ErrInvalidCursor))
			}
			if err != nil {
				return err
			}
			return output.write(command, newPageView(page), func() string { return pageTable(page, q) })
		})
	}
	return command
}

// listAll lists as many sessions as q allows: where few of them fit its conditions, a page may hold fewer than there are.
func listAll(ctx context.Context, manager *cluster.Manager, q cluster.Query) (cluster.Page, error) {
	all, err := manager.List(ctx, q)
	for err == nil && all.Next != "" && len(all.Sessions) < q.Limit {
		rest := q
		rest.Limit, rest.Cursor = q.Limit-len(all.Sessions), all.Next
		var page cluster.Page
		page, err = manager.List(ctx, rest)
		all.Sessions, all.Next, all.Now = append(all.Sessions, page.Sessions...), page.Next, page.Now
	}
	return all, err
}

func newSessionShowCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "show ID",
		Short: "Show one session, live or ended",
		Long: `Shows one session, live or ended, until its record is purged. Exit status 3: there is none.

The timeline is what the record tells, by time; when a session was activated, only its recording does.

JSON: the fields of session list, version (how often status or upstream mapping changed), client, in_flight
(key, owner and age_ms of requests that have outlived one report interval), timeline (at, null when it is
not known, and what) and frames (total and kept).`,
		Example: `  shadowcat-cluster session show 0198c0de-0000-7000-8000-000000000000`,
		Args:    sessionIDs(1),
	}
	load := addSettings(command, settings.ScopeStore)
	output := addOutput(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		s, err := load()
		if err := errors.Join(err, output.check()); err != nil {
			return err
		}
		id, err := cluster.ParseID(args[0])
		if err != nil {
			return usage(err)
		}
		return withSessions(command.Context(), s, func(manager *cluster.Manager) error {
			d, err := readDetail(command.Context(), manager, id)
			if err != nil {
				return err
			}
			return output.write(command, newDetailView(d), func() string { return detailTables(d) })
		})
	}
	return command
}

func newSessionTerminateCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "terminate ID...",
		Short: "End sessions",
		Long: `Ends sessions, without asking. Replicas stop serving them within one lease validity, and their clients
get 404. A session that has ended already keeps its status and is no error. Exit status 3: at least one
does not exist; the others are ended all the same.

JSON: {"sessions": [{"id", "outcome", "status"}]}, outcome terminated, ended_before or not_found.`,
		Example: `  shadowcat-cluster session terminate 0198c0de-0000-7000-8000-000000000000
  shadowcat-cluster session list --output json | jq -r '.sessions[].id' | xargs shadowcat-cluster session terminate`,
		Args: sessionIDs(-1),
	}
	load := addSettings(command, settings.ScopeStore)
	output := addOutput(command)
	audit := addAuditLog(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		s, err := load()
		if err := errors.Join(err, output.check()); err != nil {
			return err
		}
		return withAudit(command.Context(), s, audit(), func(_ *redisstore.Store, manager *cluster.Manager, _ cluster.Trail) error {
			outcomes, terminateErr := terminate(command.Context(), manager, args)
			if len(outcomes) == 0 {
				return terminateErr
			}
			view := terminationView{Sessions: outcomes}
			return errors.Join(output.write(command, view, func() string { return terminationLines(outcomes) }), terminateErr)
		})
	}
	return command
}

// terminate ends the sessions one after another. A session that does not exist does not stop it, a store that is away
// does: the outcomes so far are returned with the error.
func terminate(ctx context.Context, manager *cluster.Manager, ids []string) ([]termination, error) {
	outcomes := make([]termination, 0, len(ids))
	var missing []error
	for i, text := range ids {
		id, err := cluster.ParseID(text)
		if err != nil {
			return outcomes, usage(err)
		}
		session, err := manager.Terminate(ctx, id, cluster.StatusTerminated)
		outcome := termination{ID: id.String(), Outcome: "terminated", Status: string(session.Status)}
		switch {
		case errors.Is(err, cluster.ErrNotFound):
			outcome.Outcome = "not_found"
			missing = append(missing, sessionError(id, err))
		case errors.Is(err, cluster.ErrIllegalTransition):
			outcome.Outcome = "ended_before"
		case err != nil:
			return outcomes, errors.Join(append(missing, fmt.Errorf("%w (%d of %d not tried)", err, len(ids)-i-1, len(ids)))...)
		}
		outcomes = append(outcomes, outcome)
	}
	return outcomes, errors.Join(missing...)
}

// sessionError says that there is no such session in words that help; other errors pass.
func sessionError(id cluster.ID, err error) error {
	if errors.Is(err, cluster.ErrNotFound) {
		return fmt.Errorf("%s: %w: never created under this prefix, or its record has been purged", id, cluster.ErrNotFound)
	}
	return err
}

// sessionIDs accepts well-formed session ids: exactly n, or at least one when n is negative. A token pasted by mistake is
// refused without being repeated, since it is a secret.
func sessionIDs(n int) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if err := noSwitchValue(command, args); err != nil {
			return err
		}
		switch {
		case len(args) == 0:
			return errors.New("name a session by its ID, as session list shows it")
		case n >= 0 && len(args) != n:
			return fmt.Errorf("%d arguments where %d is wanted", len(args), n)
		}
		for i, arg := range args {
			if _, err := cluster.ParseID(arg); err == nil {
				continue
			}
			if strings.Contains(arg, ".") {
				return fmt.Errorf("argument %d is a token, not an ID: the ID is the part before the dot", i+1)
			}
			return fmt.Errorf("argument %d: %w", i+1, cluster.ErrInvalidID)
		}
		return nil
	}
}
