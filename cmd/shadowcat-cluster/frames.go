package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/cmd/shadowcat-cluster/settings"
)

const (
	// The bounds of --limit of session frames.
	defaultFrames = 1000
	maxFrames     = 10_000
	// framesPage is how many frames one call of the store reads: with payloads they may be large.
	framesPage = 200
	// followPause is the pause between two looks, followPatience how long a store that is away is waited for.
	followPause    = 500 * time.Millisecond
	followPatience = 10 * time.Second
	// followAfter is how long a session that has ended is followed: its replicas may still write what they have.
	followAfter = 2 * time.Second
)

func newSessionFramesCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "frames ID",
		Short: "Show what was recorded of a session's messages",
		Long: `Shows what was recorded of the messages of one session, live or ended, the latest --limit of them. Replicas
record when they run with recording metadata, or full. Times are in UTC; FROM is who sent it: the
client, the upstream, or the proxy itself, which refused. LATENCY is from the request to its answer. A
method in parentheses is none of JSON-RPC: (batch), (GET). With --follow it goes on until the session
has ended. Exit status 3: there is no such session.

JSON lines, one a frame: number, at, direction, method (empty for an answer), id, size, status (null
unless it is an answer), latency_ms (likewise), era, replica, and payload where it was recorded.`,
		Example: `  shadowcat-cluster session frames 0198c0de-0000-7000-8000-000000000000 --follow
  shadowcat-cluster session frames 0198c0de-0000-7000-8000-000000000000 --output jsonl | jq .payload`,
		Args: sessionIDs(1),
	}
	load := addSettings(command, settings.ScopeStore)
	output := addOutputOr(command, "jsonl")
	flags := command.Flags()
	limit := defaultFrames
	addNumber(flags, &limit, "limit", maxFrames, "How many frames to show, the latest")
	follow := flags.BoolP("follow", "f", false, "Go on as more is recorded")
	command.RunE = func(command *cobra.Command, args []string) error {
		s, err := load()
		var limitErr error
		if limit < 1 || limit > maxFrames {
			limitErr = usage(fmt.Errorf("--limit: %d is not in 1 to %d frames", limit, maxFrames))
		}
		if err := errors.Join(err, limitErr, output.check()); err != nil {
			return err
		}
		id, err := cluster.ParseID(args[0])
		if err != nil {
			return usage(err)
		}
		return withSessions(command.Context(), s, func(manager *cluster.Manager) error {
			shown := &framesOutput{stdout: command.OutOrStdout(), stderr: command.ErrOrStderr(), isTable: output.format == "table"}
			last, err := showFrames(command.Context(), manager, shown, id, limit)
			if err != nil || !*follow {
				return err
			}
			return followFrames(command.Context(), manager, shown, id, last)
		})
	}
	return command
}

// showFrames shows the latest frames of a session, and returns the number of the last one.
func showFrames(ctx context.Context, manager *cluster.Manager, shown *framesOutput, id cluster.ID, limit int) (int64, error) {
	first, err := manager.Frames(ctx, cluster.FrameQuery{ID: id, Limit: 1})
	if err != nil {
		return 0, sessionError(id, err)
	}
	if first.Last == 0 {
		return 0, shown.note("Nothing is recorded of this session: replicas record when they run with recording metadata, or full.")
	}
	var frames []cluster.Frame
	for after := max(first.Last-int64(limit), 0); after < first.Last; {
		page, err := manager.Frames(ctx, cluster.FrameQuery{ID: id, After: after, Limit: framesPage})
		if err != nil {
			return 0, sessionError(id, err)
		}
		if len(page.Frames) == 0 {
			break // they have been dropped since
		}
		frames = append(frames, page.Frames...)
		after = page.Frames[len(page.Frames)-1].Number
	}
	if len(frames) == 0 {
		return first.Last, nil
	}
	last := frames[len(frames)-1].Number
	oldest := frames[0].Number
	if err := shown.write(byTime(frames)); err != nil {
		return 0, err
	}
	kept := oldest
	if len(first.Frames) > 0 {
		kept = first.Frames[0].Number
	}
	if kept > 1 {
		err = shown.note(fmt.Sprintf("The first %d are not kept any more.", kept-1))
	}
	if oldest > kept {
		err = errors.Join(err, shown.note(fmt.Sprintf("There are %d earlier ones: --limit", oldest-kept)))
	}
	return last, err
}

// followFrames shows what is recorded after a frame, until the session has ended, or its record is gone, or an interrupt.
func followFrames(ctx context.Context, manager *cluster.Manager, shown *framesOutput, id cluster.ID, last int64) error {
	ctx, restore := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer restore()
	for heard, quiet := time.Now(), time.Now(); ; {
		page, err := manager.Frames(ctx, cluster.FrameQuery{ID: id, After: last, Limit: framesPage})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, cluster.ErrNotFound):
			return shown.note("The session's record has been purged.")
		case errors.Is(err, cluster.ErrStoreUnavailable) && time.Since(heard) < followPatience:
		case err != nil:
			return err
		default:
			heard = time.Now()
		}
		if len(page.Frames) > 0 {
			if page.Missed > 0 {
				err = shown.note(fmt.Sprintf("%d were dropped before they could be shown.", page.Missed))
			}
			if err := errors.Join(err, shown.write(page.Frames)); err != nil {
				return err
			}
			last, quiet = page.Frames[len(page.Frames)-1].Number, time.Now()
			continue
		}
		if err == nil && time.Since(quiet) > followAfter {
			if session, err := manager.Get(ctx, id); err == nil && session.Status.Ended() {
				return shown.note("The session has ended: " + string(session.Status) + ".")
			}
			quiet = time.Now()
		}
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return nil
		}
	}
}
