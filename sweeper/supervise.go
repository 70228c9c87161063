package sweeper

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// The pauses before a loop that panicked is started again, and how many panics in a row it may have.
const (
	firstRestart = 100 * time.Millisecond
	lastRestart  = time.Minute
	maxPanics    = 10
	// healthyFor is how long a loop must have run for its earlier panics to be forgotten.
	healthyFor = 5 * time.Minute
)

// PanicCounter is told of panics. An [Observer] is one.
type PanicCounter interface {
	Panicked(loop string)
}

// Supervise runs a loop until it returns, and returns its error. When the loop panics, that is logged with the stack, counted,
// and the loop is started again, after 100 ms at first and up to a minute later on. After ten panics in a row, or when ctx is
// done, the last one is returned as a [PanicError].
func Supervise(ctx context.Context, loop string, log *slog.Logger, counter PanicCounter, run func(context.Context) error) error {
	restart := backoff.ExponentialBackOff{InitialInterval: firstRestart, RandomizationFactor: 0.2, Multiplier: 2, MaxInterval: lastRestart}
	restart.Reset()
	for panics := 1; ; panics++ {
		started := time.Now()
		err := guard(loop, log, counter, func() error { return run(ctx) })
		if _, panicked := errors.AsType[*PanicError](err); !panicked || ctx.Err() != nil {
			return err
		}
		if time.Since(started) > healthyFor {
			panics = 1
			restart.Reset()
		}
		if panics == maxPanics || !pause(ctx, restart.NextBackOff()) {
			return err
		}
	}
}
