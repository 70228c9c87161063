package redisstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/lua"
)

var (
	sessionCreate    = redis.NewScript(lua.SessionCreate)
	sessionUpdate    = redis.NewScript(lua.SessionUpdate)
	sessionLease     = redis.NewScript(lua.SessionLease)
	sessionReport    = redis.NewScript(lua.SessionReport)
	sessionCheck     = redis.NewScript(lua.SessionCheck)
	sessionTerminate = redis.NewScript(lua.SessionTerminate)
	sessionGet       = redis.NewScript(lua.SessionGet)
	countsRead       = redis.NewScript(lua.CountsRead)
)

// call is one run of a script: what to run on which keys.
type call struct {
	script *redis.Script
	keys   []string
	args   []any
}

// run runs a script once. EVALSHA is tried first; a server that has lost the script is sent the text.
func (s *Store) run(ctx context.Context, c call) ([]any, error) {
	reply, err := c.script.Run(ctx, s.client, c.keys, c.args...).Slice()
	if err != nil {
		return nil, domainError(err)
	}
	return reply, nil
}

// repeat is run for scripts that may run twice without harm: when the connection broke, the reply may have been lost, and
// the script is run once more. It reports whether it was.
func (s *Store) repeat(ctx context.Context, c call) (reply []any, repeated bool, err error) {
	reply, err = s.run(ctx, c)
	if err != nil && isBrokenConnection(err) && ctx.Err() == nil {
		reply, err = s.run(ctx, c)
		return reply, true, err
	}
	return reply, false, err
}

// pipelined is the outcome of one call of a pipeline.
type pipelined struct {
	reply []any
	err   error
}

// pipeline runs calls in one round trip. A server that has lost a script says so without running it, and inside a
// pipeline the client does not fall back to sending the text: those calls are made again once the script is loaded.
func (s *Store) pipeline(ctx context.Context, calls []call) []pipelined {
	results := make([]pipelined, len(calls))
	todo := make([]int, len(calls))
	for i := range calls {
		todo[i] = i
	}
	for range 3 { // a script may be lost again between loading and running it
		todo = s.pipelineOnce(ctx, calls, todo, results)
		if len(todo) == 0 {
			return results
		}
		if err := calls[todo[0]].script.Load(ctx, s.client).Err(); err != nil {
			break
		}
	}
	for _, i := range todo {
		results[i].err = unavailable(errScriptLost)
	}
	return results
}

// pipelineOnce runs the calls numbered in todo and returns the numbers of those whose script the server does not have.
func (s *Store) pipelineOnce(ctx context.Context, calls []call, todo []int, results []pipelined) (lost []int) {
	pipe := s.client.Pipeline()
	sent := make([]*redis.Cmd, len(todo))
	for n, i := range todo {
		sent[n] = calls[i].script.EvalSha(ctx, pipe, calls[i].keys, calls[i].args...)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for n, i := range todo {
		reply, err := sent[n].Slice()
		switch {
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			lost = append(lost, i)
		case err != nil:
			results[i] = pipelined{err: domainError(err)}
		default:
			results[i] = pipelined{reply: reply}
		}
	}
	return lost
}

var errScriptLost = errors.New("the server keeps losing the store's scripts")

// isBrokenConnection reports whether a call ended because its connection did, rather than by an answer or a timeout.
func isBrokenConnection(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op != "dial" && !op.Timeout()
}

// domainError turns a script's error reply into the error that cluster.Store promises. Whatever is no outcome of a script
// is a fault of the store.
func domainError(err error) error {
	code, rest, _ := strings.Cut(err.Error(), " ")
	if !isReply(err) {
		code = ""
	}
	switch code {
	case "NOTFOUND":
		return cluster.ErrNotFound
	case "ILLEGAL":
		return cluster.ErrIllegalTransition
	case "CONFLICT":
		return cluster.ErrConflict
	case "FULL":
		return &cluster.LimitError{Limit: "max_sessions", RetryAfter: retryAfter(rest), Err: cluster.ErrCapacity}
	case "LIMITED":
		return &cluster.LimitError{Limit: "request_rate", RetryAfter: retryAfter(rest), Err: cluster.ErrRateLimited}
	default:
		return unavailable(err)
	}
}

// isReply reports whether err is what the server said, not what happened on the way.
func isReply(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

func unavailable(err error) error {
	return fmt.Errorf("%w: %w", cluster.ErrStoreUnavailable, err)
}

func retryAfter(ms string) time.Duration {
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || n < 1 {
		n = 1
	}
	return time.Duration(n) * time.Millisecond
}
