package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// info reads one field of INFO, such as used_memory.
func info(ctx context.Context, client *redis.Client, section, field string) (string, error) {
	text, err := client.Info(ctx, section).Result()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), field+":"); found {
			return value, nil
		}
	}
	return "", fmt.Errorf("the server does not tell %s", field)
}

// UsedMemory is what a server says that it uses, in bytes.
func UsedMemory(ctx context.Context, client *redis.Client) (int64, error) {
	value, err := info(ctx, client, "memory", "used_memory")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(value, 10, 64)
}

// Connections is how many clients a server has, this one included.
func Connections(ctx context.Context, client *redis.Client) (int64, error) {
	value, err := info(ctx, client, "clients", "connected_clients")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(value, 10, 64)
}

// CPU is the processor time that a server has used so far, in its own account: user and system time of the whole process, to a
// microsecond.
func CPU(ctx context.Context, client *redis.Client) (time.Duration, error) {
	var sum time.Duration
	for _, field := range []string{"used_cpu_user", "used_cpu_sys"} {
		value, err := info(ctx, client, "cpu", field)
		if err != nil {
			return 0, err
		}
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", field, err)
		}
		sum += time.Duration(seconds * float64(time.Second))
	}
	return sum, nil
}

// ScriptCalls is how many scripts a server has run.
func ScriptCalls(ctx context.Context, client *redis.Client) (int64, error) {
	value, err := info(ctx, client, "commandstats", "cmdstat_evalsha")
	if err != nil {
		return 0, err
	}
	count, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
	return strconv.ParseInt(count, 10, 64)
}

// Version is the server's version.
func Version(ctx context.Context, client *redis.Client) (string, error) {
	return info(ctx, client, "server", "redis_version")
}

// ticksPerSecond is Linux's USER_HZ, which is 100 wherever Go runs.
const ticksPerSecond = 100

// ProcessCPU is the processor time that a process of this machine has used so far, to ten milliseconds. It needs Linux.
func ProcessCPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("the process tells no times")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64) // utime is the 14th of all
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticksPerSecond, err
}
