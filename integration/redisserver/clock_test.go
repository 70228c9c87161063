package redisserver_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/integration/redisserver"
)

var someDay = time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)

// newClock makes a clock for the test alone.
func newClock(tb testing.TB) *redisserver.Clock {
	tb.Helper()
	clock, err := redisserver.NewClock(someDay)
	if errors.Is(err, redisserver.ErrNoClock) && os.Getenv("CI") != "true" {
		tb.Skipf("skipped: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := clock.Close(); err != nil {
			tb.Error(err)
		}
	})
	return clock
}

// clocked starts a server that goes by a clock.
func clocked(tb testing.TB) (*redisserver.Clock, *redis.Client) {
	tb.Helper()
	clock := newClock(tb)
	client := start(tb, redisserver.Options{Clock: clock}).Client()
	tb.Cleanup(func() { client.Close() })
	return clock, client
}

func setClock(tb testing.TB, clock *redisserver.Clock, to time.Time) {
	tb.Helper()
	if err := clock.Set(to); err != nil {
		tb.Fatal(err)
	}
}

func advance(tb testing.TB, clock *redisserver.Clock, d time.Duration) {
	tb.Helper()
	if err := clock.Advance(d); err != nil {
		tb.Fatal(err)
	}
}

// checkTime fails the test unless the server shows exactly this time, to commands and to scripts.
func checkTime(t *testing.T, client *redis.Client, want time.Time) {
	t.Helper()
	got, err := client.Time(t.Context()).Result()
	if err != nil || !got.Equal(want) {
		t.Errorf("TIME is %s, %v; want %s", got.UTC(), err, want)
	}
	parts, err := client.Eval(t.Context(), `local t = redis.call("TIME"); return {tonumber(t[1]), tonumber(t[2])}`, nil).Int64Slice()
	if err != nil || len(parts) != 2 || parts[0]*1e6+parts[1] != want.UnixMicro() {
		t.Errorf("TIME in a script is %v, %v; want the microseconds %d", parts, err, want.UnixMicro())
	}
}

func TestTheClockStandsWhereItIsSet(t *testing.T) {
	t.Parallel()
	clock, client := clocked(t)
	checkTime(t, client, someDay)
	for _, to := range []time.Time{
		someDay.Add(time.Microsecond), someDay.Add(time.Millisecond), someDay.AddDate(30, 0, 0),
		someDay.Add(-time.Millisecond), someDay.AddDate(-30, 0, 0), time.UnixMilli(0), time.UnixMilli(999), someDay,
	} {
		setClock(t, clock, to)
		checkTime(t, client, to)
		if !clock.Now().Equal(to) {
			t.Errorf("the clock stands at %s, want %s", clock.Now(), to)
		}
	}
	for _, d := range []time.Duration{time.Hour, -2 * time.Hour} {
		want := clock.Now().Add(d)
		advance(t, clock, d)
		checkTime(t, client, want)
	}
}

func TestKeysExpireByTheClock(t *testing.T) {
	t.Parallel()
	clock, client := clocked(t)
	ctx, deadline := t.Context(), someDay.Truncate(time.Millisecond).Add(20*time.Minute)
	if err := client.Set(ctx, "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.PExpireAt(ctx, "key", deadline).Err(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		at   time.Time
		want int64
	}{
		{deadline.Add(-time.Millisecond), 1},
		{someDay.Add(-24 * time.Hour), 1},
		{deadline.Add(-time.Microsecond), 1},
		{deadline.Add(time.Millisecond), 0},
		{someDay, 0}, // gone for good
	} {
		setClock(t, clock, step.at)
		if n, err := client.Exists(ctx, "key").Result(); err != nil || n != step.want {
			t.Errorf("at %s there are %d keys, %v; want %d", step.at, n, err, step.want)
		}
	}
}

func TestTheServerShowsEveryOneOfManyJumps(t *testing.T) {
	t.Parallel()
	clock, client := clocked(t)
	const jumps = 2000
	for i := range jumps {
		to := someDay.Add(time.Duration(i) * 777 * time.Hour)
		if i%3 == 0 {
			to = someDay.Add(-time.Duration(i) * time.Millisecond)
		}
		setClock(t, clock, to)
		if got, err := client.Time(t.Context()).Result(); err != nil || !got.Equal(to) {
			t.Fatalf("after %d jumps TIME is %s, %v; want %s", i, got.UTC(), err, to)
		}
	}
}

func TestServersShareAClockAndARestartKeepsIt(t *testing.T) {
	t.Parallel()
	clock := newClock(t)
	for range 2 {
		server := start(t, redisserver.Options{Clock: clock})
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		setClock(t, clock, clock.Now().Add(time.Hour))
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		client := server.Client()
		checkTime(t, client, clock.Now())
		client.Close()
	}
}

func TestAClockSaysWhatItCannotDo(t *testing.T) {
	t.Parallel()
	clock := newClock(t)
	if err := clock.Set(time.UnixMilli(-1)); err == nil {
		t.Error("a clock was set to before 1970")
	}
	for range 2 {
		if err := clock.Close(); err != nil {
			t.Error(err)
		}
	}
	if clock.Set(someDay) == nil || clock.Advance(time.Second) == nil || !clock.Now().IsZero() {
		t.Error("a closed clock can be set and read")
	}
	server, err := redisserver.Start(t.Context(), redisserver.Options{Clock: clock})
	if err == nil {
		t.Error("a server started by a closed clock", server.Close())
	} else if !errors.Is(err, redisserver.ErrNotInstalled) && !strings.Contains(err.Error(), "closed") {
		t.Errorf("a server with a closed clock did not start: %v, want the reason", err)
	}
}

func TestWithoutACompilerThereIsNoClock(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := redisserver.NewClock(someDay); !errors.Is(err, redisserver.ErrNoClock) {
		t.Errorf("got %v, want %v", err, redisserver.ErrNoClock)
	}
}

// BenchmarkJump is what a jump costs alone, and with the command that sees it, beside that command by the real time.
func BenchmarkJump(b *testing.B) {
	b.Run("jump", func(b *testing.B) {
		clock := newClock(b)
		for b.Loop() {
			advance(b, clock, time.Millisecond)
		}
	})
	b.Run("jump and TIME", func(b *testing.B) {
		clock, client := clocked(b)
		for b.Loop() {
			advance(b, clock, time.Millisecond)
			if err := client.Time(b.Context()).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("TIME by the real time", func(b *testing.B) {
		client := start(b, redisserver.Options{}).Client()
		defer client.Close()
		for b.Loop() {
			if err := client.Time(b.Context()).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
