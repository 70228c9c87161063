package redisstore

import (
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by it
	"encoding/hex"
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
	sessionCreate    = newScript(lua.SessionCreate)
	sessionUpdate    = newScript(lua.SessionUpdate)
	sessionLease     = newScript(lua.SessionLease)
	sessionReport    = newScript(lua.SessionReport)
	sessionCheck     = newScript(lua.SessionCheck)
	sessionTerminate = newScript(lua.SessionTerminate)
	sessionGet       = newScript(lua.SessionGet)
	sessionsSweep    = newPatient(lua.SessionsSweep)
	eventsAppend     = newScript(lua.EventsAppend)
	eventsRead       = newScript(lua.EventsRead)
	framesAppend     = newScript(lua.FramesAppend)
	framesRead       = newScript(lua.FramesRead)
	pendingPrune     = newPatient(lua.PendingPrune)
	pendingRead      = newScript(lua.PendingRead)
	rateTake         = newScript(lua.RateTake)
	rateGrant        = newScript(lua.RateGrant)
	placeReserve     = newScript(lua.PlaceReserve)
	placeRelease     = newScript(lua.PlaceRelease)
	placeGive        = newScript(lua.PlaceGive)
	epochTake        = newPatient(lua.EpochTake)
	sessionsEnd      = newPatient(lua.SessionsEnd)
	sessionsPurge    = newPatient(lua.SessionsPurge)
	sessionsMend     = newPatient(lua.SessionsMend)
	countsMend       = newPatient(lua.CountsMend)
	sessionsOwners   = newPatient(lua.SessionsOwners)
	replicaBeat      = newScript(lua.ReplicaBeat)
	replicasRead     = newScript(lua.ReplicasRead)
	countsRead       = newPatient(lua.CountsRead)
	clockRead        = newPatient(lua.ClockRead)
	metaClaim        = newScript(lua.MetaClaim)
	streamClaim      = newScript(lua.StreamClaim)
	streamRelease    = newScript(lua.StreamRelease)
	streamStates     = newScript(lua.StreamStates)
	streamOpen       = newScript(lua.StreamOpen)
	streamClose      = newScript(lua.StreamClose)
	sessionRecover   = newScript(lua.SessionRecover)
	noteKeep         = newScript(lua.NoteKeep)
)

// script is a Lua script, its name, and the digest under which a server remembers it.
type script struct {
	name, text, digest string
	isPatient          bool // it is run although the store does not answer: see Store.checkBreaker
}

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // what the protocol says
	return &script{name: lua.Name(text), text: text, digest: hex.EncodeToString(sum[:])}
}

// newPatient returns a script of election and cleanup.
func newPatient(text string) *script {
	s := newScript(text)
	s.isPatient = true
	return s
}

// call is one run of a script: what to run on which keys.
type call struct {
	script *script
	keys   []string
	args   []any
}

// once is a command that the client must not run again by itself: when the reply was lost, the script may have run. A
// redirection by a Redis Cluster is followed all the same, because a node that redirects has run nothing.
type once struct {
	*redis.Cmd

	script string // its name; empty: it is no script
}

// FullName is what spans of the command are called.
func (o once) FullName() string { return cmp.Or(o.script, o.Cmd.FullName()) }

// NoRetry is what the client asks before it retries.
func (once) NoRetry() bool { return true }

// command returns the call with the script as its digest, or as its text.
func (c call) command(ctx context.Context, text bool) once {
	args := make([]any, 0, 3+len(c.keys)+len(c.args))
	if text {
		args = append(args, "eval", c.script.text)
	} else {
		args = append(args, "evalsha", c.script.digest)
	}
	args = append(args, len(c.keys))
	for _, key := range c.keys {
		args = append(args, key)
	}
	return once{Cmd: redis.NewCmd(ctx, append(args, c.args...)...), script: c.script.name}
}

// run runs a script once, unless the store does not answer.
func (s *Store) run(ctx context.Context, c call) ([]any, error) {
	if err := s.checkBreaker(c); err != nil {
		return nil, err
	}
	begun := time.Now()
	reply, err := s.runOnce(ctx, c)
	took := time.Since(begun)
	s.observe(c, err, took)
	s.tell(s.breakerOf(c.keys[0]), s.judge(err, took), err, begun)
	return reply, err
}

// runOnce runs a script once. A server that has lost the script is sent its text.
func (s *Store) runOnce(ctx context.Context, c call) ([]any, error) {
	cmd := c.command(ctx, false)
	_ = s.client.Process(ctx, cmd) // the command has the error, too
	if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		cmd = c.command(ctx, true)
		_ = s.client.Process(ctx, cmd)
	}
	reply, err := cmd.Slice()
	if err != nil {
		return nil, domainError(err)
	}
	return reply, nil
}

// maxStale bounds how many dead connections one call may run into. The client notices that an idle connection is dead
// only when it is not TLS: after a restart of the server, or at a balancer that cuts idle connections, every idle TLS
// connection fails one call.
const maxStale = 64

// repeat is run for scripts that may run twice without harm: when the connection broke, the reply may have been lost, and
// the script is run again. It reports whether it was.
func (s *Store) repeat(ctx context.Context, c call) (reply []any, repeated bool, err error) {
	return s.repeatWith(ctx, c, s.runOnce)
}

// repeatWith bounds all tries together by the store's timeout: what makes several calls may take several times as long.
func (s *Store) repeatWith(ctx context.Context, c call, run func(context.Context, call) ([]any, error)) (reply []any, repeated bool, err error) {
	if err := s.checkBreaker(c); err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StoreTimeout)
	defer cancel()
	begun := time.Now()
	for range maxStale {
		reply, err = run(ctx, c)
		if err == nil || !isBrokenConnection(err) || ctx.Err() != nil {
			break
		}
		repeated = true
	}
	took := time.Since(begun)
	s.observe(c, err, took)
	v := s.judge(err, took)
	if repeated && err != nil && isBrokenConnection(err) {
		v = failed // not even a new connection works
	}
	s.tell(s.breakerOf(c.keys[0]), v, err, begun)
	return reply, repeated, err
}

// runLease is run for session_lease, which counts twice when it runs twice. Over TLS that is the lesser evil, because
// there a broken connection usually was one that had been dead before: the limit then errs on the safe side.
func (s *Store) runLease(ctx context.Context, c call) ([]any, error) {
	if !s.tls {
		return s.run(ctx, c)
	}
	reply, _, err := s.repeat(ctx, c)
	return reply, err
}

// pipelined is the outcome of one call of a pipeline.
type pipelined struct {
	reply []any
	err   error
}

// pipeline runs calls in one round trip, but for those to parts of the store that do not answer.
func (s *Store) pipeline(ctx context.Context, calls []call) []pipelined {
	results := make([]pipelined, len(calls))
	admitted := make([]int, 0, len(calls))
	for i, c := range calls {
		if results[i].err = s.checkBreaker(c); results[i].err == nil {
			admitted = append(admitted, i)
		}
	}
	begun := time.Now()
	s.pipelineAll(ctx, calls, admitted, results)
	type outcome struct {
		verdict verdict
		err     error
	}
	took, said := time.Since(begun), make(map[*breaker]outcome, 1)
	for _, i := range admitted {
		s.observe(calls[i], results[i].err, took)
	}
	for _, i := range admitted { // of several calls to one part any answer counts, then any failure
		part, v := s.breakerOf(calls[i].keys[0]), s.judge(results[i].err, took)
		if before, found := said[part]; !found || v == answered || before.verdict == unclear {
			said[part] = outcome{v, results[i].err}
		}
	}
	for part, o := range said {
		s.tell(part, o.verdict, o.err, begun)
	}
	return results
}

// pipelineAll runs the calls numbered in todo. A server that has lost a script says so without running it; those calls are
// made once more, the first of each script and partition with the text, which the others find loaded.
func (s *Store) pipelineAll(ctx context.Context, calls []call, todo []int, results []pipelined) {
	for round := range 3 { // a script may be lost again between loading and running it
		if len(todo) == 0 {
			return
		}
		todo = s.pipelineOnce(ctx, calls, todo, results, round > 0)
	}
	for _, i := range todo {
		results[i].err = unavailable(errScriptLost)
	}
}

// pipelineOnce runs the calls numbered in todo and returns the numbers of those whose script the server does not have.
func (s *Store) pipelineOnce(ctx context.Context, calls []call, todo []int, results []pipelined, load bool) (lost []int) {
	type place struct {
		script *script
		key    string // any of the partition's: the first key of a call is one
	}
	loaded := make(map[place]bool)
	pipe := s.client.Pipeline()
	sent := make([]once, len(todo))
	for n, i := range todo {
		at := place{calls[i].script, slotKey(calls[i].keys[0])}
		sent[n] = calls[i].command(ctx, load && !loaded[at])
		loaded[at] = true
		_ = pipe.Process(ctx, sent[n]) // queues it
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for n, i := range todo {
		reply, err := sent[n].Slice()
		if answer, ok := sent[n].Val().([]any); ok && answer != nil {
			// Over several nodes the client gives its last error to all commands, those with a reply included.
			reply, err = answer, nil
		}
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

// slotKey cuts a key after its hash tag: what is left is the same for all keys of a partition.
func slotKey(key string) string {
	tag, _, _ := strings.Cut(key, "}")
	return tag
}

var errScriptLost = errors.New("the server keeps losing the store's scripts")

// isBrokenConnection reports whether a call ended because its connection did, rather than by an answer or a timeout.
func isBrokenConnection(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	// A TLS alert is an answer: asked again, the server would say the same.
	return ok && op.Op != "dial" && op.Op != "remote error" && op.Op != "local error" && !op.Timeout()
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
	case "FENCED":
		epoch, _ := strconv.ParseInt(rest, 10, 64) // 0 is as good as nothing
		return &cluster.FencedError{Epoch: epoch}
	case "EXISTS":
		return cluster.ErrTaken
	case "GONE":
		return cluster.ErrEventsGone
	case "STALE":
		return cluster.ErrStaleClaim
	case "NOTESFULL":
		return cluster.ErrNotesFull
	case "ILLEGAL":
		return cluster.ErrIllegalTransition
	case "CONFLICT":
		return cluster.ErrConflict
	case "LIMITED":
		return &cluster.LimitError{Limit: "request_rate", RetryAfter: retryAfter(rest), Err: cluster.ErrRateLimited}
	case "PENDING":
		return &cluster.LimitError{Limit: "max_pending", RetryAfter: pendingRetry, Err: cluster.ErrPendingLimited}
	default:
		return notSent(err)
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

// pendingRetry is what a caller is told to wait for when too many requests are in flight: nobody knows when one ends.
const pendingRetry = time.Second

func retryAfter(ms string) time.Duration {
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || n < 1 {
		n = 1
	}
	return duration(n, time.Millisecond)
}
