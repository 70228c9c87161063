package redisserver

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/integration/process"
)

// ErrNoClock says that this machine cannot make a Clock.
var ErrNoClock = errors.New("a clock that tests move needs 64-bit Linux and a C compiler called cc on PATH: " +
	"install it (Debian: apt-get install gcc libc6-dev)")

// clockSource is compiled and preloaded into the server. Why not libfaketime, it says itself.
//
//go:embed preload/clock.c
var clockSource []byte

const (
	clockVariable  = "SHADOWCAT_TEST_CLOCK" // as in clockSource
	compileTimeout = time.Minute
	wordSize       = 8 // bytes that hold the instant
)

// Clock is the wall clock of servers started with it, by which TIME and the expiry of keys go. It stands still until it is
// set, forward or back, and then every server sees the new instant at its next look. Instants are whole microseconds, the
// unit of TIME. A server's background work goes on in real time. A Clock may be used by several goroutines.
//
// What compares the clocks of several servers, such as replication and failover, does not work by a clock that stands.
type Clock struct {
	dir    string
	mu     sync.Mutex
	shared []byte // the file that servers map, in memory; nil once closed
}

// NewClock makes a clock that stands at start. It returns ErrNoClock where that cannot be done, before it tries. The caller
// must call Close.
func NewClock(start time.Time) (*Clock, error) {
	compiler, err := exec.LookPath("cc")
	if err != nil || runtime.GOOS != "linux" || strconv.IntSize != wordSize*8 {
		return nil, ErrNoClock
	}
	dir, err := os.MkdirTemp("", "shadowcat-clock-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for a clock: %w", err)
	}
	c := &Clock{dir: dir}
	err = c.compile(compiler)
	if err == nil {
		err = c.share()
	}
	if err == nil {
		err = c.Set(start)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Clock) library() string { return filepath.Join(c.dir, "clock.so") }
func (c *Clock) file() string    { return filepath.Join(c.dir, "clock") }

func (c *Clock) compile(compiler string) error {
	source := filepath.Join(c.dir, "clock.c")
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		return fmt.Errorf("write the source of a clock: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), compileTimeout)
	defer cancel()
	output, err := exec.CommandContext(ctx, compiler, "-shared", "-fPIC", "-O2", "-o", c.library(), source).CombinedOutput()
	if err != nil {
		return fmt.Errorf("compile a clock: %w; the compiler (Debian: packages gcc and libc6-dev) said:\n%s", err, output)
	}
	return nil
}

// share makes the file and maps it, so that neither side needs a system call to set the clock or to read it.
func (c *Clock) share() error {
	if err := os.WriteFile(c.file(), make([]byte, wordSize), 0o600); err != nil {
		return fmt.Errorf("make the file of a clock: %w", err)
	}
	file, err := os.OpenFile(c.file(), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the file of a clock: %w", err)
	}
	c.shared, err = syscall.Mmap(int(file.Fd()), 0, wordSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err := errors.Join(err, file.Close()); err != nil { // the mapping outlives the descriptor
		return fmt.Errorf("map the file of a clock: %w", err)
	}
	return nil
}

// instant is the shared microseconds since 1970. The caller must hold mu and have seen that the clock is not closed.
func (c *Clock) instant() *int64 {
	// A mapping begins at a page, so the number is aligned and may be stored at once: a server never sees half of one.
	return (*int64)(unsafe.Pointer(&c.shared[0]))
}

// Set moves the clock to an instant since 1970, cut to microseconds. Commands sent after it has returned see that instant.
func (c *Clock) Set(to time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.set(to)
}

func (c *Clock) set(to time.Time) error {
	if c.shared == nil {
		return errors.New("set a clock: it is closed")
	}
	if to.Before(time.UnixMicro(0)) {
		return fmt.Errorf("set a clock to %s: it begins in 1970", to)
	}
	atomic.StoreInt64(c.instant(), to.UnixMicro())
	return nil
}

// Advance moves the clock by d, which may be negative: as Set does, from where it stands.
func (c *Clock) Advance(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shared == nil {
		return errors.New("advance a clock: it is closed")
	}
	return c.set(time.UnixMicro(atomic.LoadInt64(c.instant())).Add(d))
}

// Now is where the clock stands, in UTC; the zero time once it is closed.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shared == nil {
		return time.Time{}
	}
	return time.UnixMicro(atomic.LoadInt64(c.instant())).UTC()
}

// Close removes the clock. Servers that run see it stand for good; no further one can be started with it. It may be called
// again.
func (c *Clock) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var unmapped error
	if c.shared != nil {
		if err := syscall.Munmap(c.shared); err != nil {
			unmapped = fmt.Errorf("unmap the file of a clock: %w", err)
		}
		c.shared = nil
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return errors.Join(unmapped, fmt.Errorf("remove the folder of a clock: %w", err))
	}
	return unmapped
}

// environment is that of a server which goes by the clock, and nil, the caller's own, for none.
func (c *Clock) environment() []string {
	if c == nil {
		return nil
	}
	return append(process.Environment("LD_PRELOAD"), "LD_PRELOAD="+c.library(), clockVariable+"="+c.file())
}

// check asks a server for its time, if it shall go by a clock. A linker that cannot preload something says so and goes on
// without, and then every test of time would run by the real clock.
func (c *Clock) check(ctx context.Context, client *redis.Client) error {
	if c == nil {
		return nil
	}
	before := c.Now()
	shown, err := client.Time(ctx).Result()
	if err != nil {
		return fmt.Errorf("check the clock of redis-server: %w", err)
	}
	// Somebody may have moved it in between, on purpose.
	if moved := !before.Equal(c.Now()); moved || shown.Equal(before) {
		return nil
	}
	return fmt.Errorf("redis-server shows %s by a clock that stands at %s: it has not loaded %s (is the clock closed?)",
		shown.UTC(), before, c.library())
}
