package mcp

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// Error codes that JSON-RPC itself defines.
const (
	CodeParseError     = -32700 // the body is not JSON
	CodeInvalidRequest = -32600 // the JSON is not a message
	CodeMethodNotFound = -32601 // there is no such method
	CodeInvalidParams  = -32602 // a method's parameters are missing or wrong
)

// The protocol's own error codes, since 2026-07-28.
const (
	CodeHeaderMismatch     = -32020 // a header does not say what the body says, or is missing
	CodeUnsupportedVersion = -32022 // the request is of a revision that is not spoken here; the data says which are
)

// HTTPCode is the JSON-RPC error code for a refusal with an HTTP status: 1000 more, which is outside of the ranges that
// JSON-RPC and the protocol reserve.
func HTTPCode(status int) int { return 1000 + status }

// Reason tells a client's program why a message was refused, where the HTTP status alone does not.
type Reason string

// The reasons.
const (
	ReasonSessionRequired     Reason = "session_required"
	ReasonSessionNotFound     Reason = "session_not_found"
	ReasonRateLimited         Reason = "rate_limited"
	ReasonTooManyPending      Reason = "too_many_pending"
	ReasonTooManyStreams      Reason = "too_many_streams"
	ReasonCapacity            Reason = "capacity"
	ReasonCreationRate        Reason = "creation_rate"
	ReasonBodyTooLarge        Reason = "body_too_large"
	ReasonHeaderTooLarge      Reason = "header_too_large"
	ReasonStoreUnavailable    Reason = "store_unavailable"
	ReasonUpstreamUnavailable Reason = "upstream_unavailable"
	ReasonMayHaveRun          Reason = "may_have_run"
	ReasonEventsGone          Reason = "events_gone"
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{
		ReasonSessionRequired, ReasonSessionNotFound, ReasonRateLimited, ReasonTooManyPending, ReasonTooManyStreams, ReasonCapacity,
		ReasonCreationRate, ReasonBodyTooLarge, ReasonHeaderTooLarge, ReasonStoreUnavailable, ReasonUpstreamUnavailable, ReasonMayHaveRun, ReasonEventsGone,
	}
}

// Error is the error of a JSON-RPC answer.
type Error struct {
	Code    int
	Message string
	// Reason, Limit, RetryAfter, Supported and Requested become the error's data; each may be left zero.
	Reason     Reason
	Limit      string        // the setting that was reached
	RetryAfter time.Duration // sent in whole milliseconds, rounded up
	Supported  []string      // with CodeUnsupportedVersion: the revisions that are
	Requested  string        // and the one that was asked for
}

// wireError is a JSON-RPC error answer as it is sent.
type wireError struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Error   struct {
		Code    int        `json:"code"`
		Message string     `json:"message"`
		Data    *errorData `json:"data,omitempty"`
	} `json:"error"`
}

type errorData struct {
	Reason       Reason   `json:"reason,omitempty"`
	Limit        string   `json:"limit,omitempty"`
	RetryAfterMS int64    `json:"retry_after_ms,omitempty"`
	Supported    []string `json:"supported,omitempty"`
	Requested    string   `json:"requested,omitempty"`
}

// EncodeError returns the JSON text of an error answer to the request with this id. Without an id the answer has none,
// which is how the protocol says that it is not known which message was refused.
func EncodeError(id ID, e Error) []byte {
	var wire wireError
	wire.Version = "2.0"
	wire.ID = json.RawMessage(id)
	wire.Error.Code = e.Code
	wire.Error.Message = e.Message
	data := errorData{
		Reason:       e.Reason,
		Limit:        e.Limit,
		RetryAfterMS: int64((e.RetryAfter + time.Millisecond - 1) / time.Millisecond),
		Supported:    e.Supported,
		Requested:    e.Requested,
	}
	if !reflect.ValueOf(data).IsZero() {
		wire.Error.Data = &data
	}
	text, err := json.Marshal(wire)
	if err != nil {
		// Only an ID that Peek did not make can be invalid JSON.
		panic(fmt.Sprintf("mcp: encoding an error answer: %v", err))
	}
	return text
}
