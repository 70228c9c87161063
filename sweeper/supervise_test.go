package sweeper_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tapwire/shadowcat-cluster/sweeper"
)

// supervised runs a loop that does what the test says at each start, and returns when it was started.
func supervised(t *testing.T, ctx context.Context, run func(start int) error) (starts []time.Time, seen *witness, log *journal, err error) { //nolint:revive // t first, as everywhere
	t.Helper()
	seen, log = &witness{t: t}, &journal{}
	err = sweeper.Supervise(ctx, "loop", slog.New(slog.NewTextHandler(log, nil)), seen, func(context.Context) error {
		starts = append(starts, time.Now())
		return run(len(starts))
	})
	return starts, seen, log, err
}

func TestALoopThatReturnsIsNotStartedAgain(t *testing.T) {
	t.Parallel()
	for _, want := range []error{nil, io.ErrUnexpectedEOF} {
		starts, seen, _, err := supervised(t, t.Context(), func(int) error { return want })
		if len(starts) != 1 || !errors.Is(err, want) || len(seen.count().panicked) > 0 {
			t.Errorf("%d starts, %v; want 1, %v", len(starts), err, want)
		}
	}
}

func TestALoopThatPanicsIsStartedAgainLaterAndLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		starts, seen, log, err := supervised(t, t.Context(), func(start int) error {
			if start <= 5 {
				panic("boom")
			}
			return nil
		})
		if err != nil || len(starts) != 6 || len(seen.count().panicked) != 5 || seen.count().panicked[0] != "loop" {
			t.Fatalf("%d starts, %d panics told, %v; want 6, 5", len(starts), len(seen.count().panicked), err)
		}
		pause := 100 * time.Millisecond
		for i := 1; i < len(starts); i++ {
			if got := starts[i].Sub(starts[i-1]); got < pause*8/10 || got > pause*12/10 {
				t.Errorf("pause %d is %v, want %v give or take a fifth", i, got, pause)
			}
			pause *= 2
		}
		if log.count("supervise_test.go") < 5 || log.count("panic=boom") != 5 {
			t.Error("the log lacks the stacks")
		}
	})
}

func TestALoopThatPanicsTenTimesInARowIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		starts, _, _, err := supervised(t, t.Context(), func(int) error { panic("boom") })
		failure, ok := errors.AsType[*sweeper.PanicError](err)
		if !ok || failure.Loop != "loop" || failure.Value != "boom" || len(starts) != 10 {
			t.Errorf("%d starts, %v; want 10 and a PanicError", len(starts), err)
		}
	})
}

func TestALoopThatWorkedForLongIsForgivenItsPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		starts, _, _, err := supervised(t, t.Context(), func(start int) error {
			if start == 9 {
				<-time.After(5*time.Minute + time.Second)
			}
			panic("boom")
		})
		if len(starts) != 18 || err == nil { // the ninth panic is a first one
			t.Fatalf("%d starts, %v; want 18", len(starts), err)
		}
		if pause := starts[9].Sub(starts[8]) - 5*time.Minute - time.Second; pause > 120*time.Millisecond {
			t.Errorf("the pause afterwards is %v, want the first one", pause)
		}
	})
}

func TestALoopIsNotStartedAgainAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		starts, _, _, err := supervised(t, ctx, func(int) error {
			cancel()
			panic("boom")
		})
		if _, ok := errors.AsType[*sweeper.PanicError](err); !ok || len(starts) != 1 {
			t.Errorf("cancelled before the panic: %d starts, %v; want 1 and the panic", len(starts), err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		begun := time.Now()
		time.AfterFunc(time.Second, cancel)
		_, _, _, err = supervised(t, ctx, func(int) error { panic("boom") })
		if took := time.Since(begun); err == nil || took != time.Second {
			t.Errorf("cancelled in a pause: ended after %v, %v; want 1s", took, err)
		}
	})
}
