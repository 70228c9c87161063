package sweeper

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// PanicError is what became of a loop that panicked.
type PanicError struct {
	Loop  string // which one, such as lead
	Value any    // what it panicked with
}

// Error says which loop panicked, and with what.
func (e *PanicError) Error() string { return fmt.Sprintf("panic in %s: %v", e.Loop, e.Value) }

// guard runs a loop's work. A panic is logged with its stack, counted, and becomes a [PanicError].
func guard(loop string, log *slog.Logger, counter PanicCounter, work func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Loop: loop, Value: value}
			defer func() { _ = recover() }() // who is told of panics may itself panic, and there is nobody else to tell
			log.LogAttrs(context.Background(), slog.LevelError, "recovered from a panic",
				slog.String("loop", loop), slog.String("panic", fmt.Sprint(value)), slog.String("stack", string(debug.Stack())))
			counter.Panicked(loop)
		}
	}()
	return work()
}
