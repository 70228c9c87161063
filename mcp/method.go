package mcp

import (
	"maps"
	"slices"
)

// Methods that a proxy must tell from the others.
const (
	MethodInitialize  = "initialize"
	MethodInitialized = "notifications/initialized"
	MethodPing        = "ping"
	MethodSetLevel    = "logging/setLevel"
	MethodSubscribe   = "resources/subscribe"
	MethodUnsubscribe = "resources/unsubscribe"
	MethodCancelled   = "notifications/cancelled" // its sender's request with the id params.requestId needs no answer any more
	MethodListen      = "subscriptions/listen"    // from 2026-07-28: its answer is a stream without an end
)

// Target is the key of a request's params that says what it is for.
type Target string

// The targets. Requests of other methods than these have none.
const (
	TargetNone Target = ""
	TargetName Target = "name"
	TargetURI  Target = "uri"
)

// TargetOf returns which key of params a request's Mcp-Name header repeats.
func TargetOf(method string) Target {
	switch method {
	case "tools/call", "prompts/get":
		return TargetName
	case "resources/read":
		return TargetURI
	}
	return TargetNone
}

// IsTargetless reports whether the revision without sessions itself defines requests of this method, and they name nothing that Mcp-Name
// could repeat. Of extensions it says nothing: theirs may name something by a key of their own, as tasks/get does by taskId.
func IsTargetless(method string) bool {
	switch method {
	case "completion/complete", "prompts/list", "resources/list", "resources/templates/list", "server/discover", MethodListen, "tools/list":
		return true
	}
	return false
}

// ReadOnly reports whether a request of this method changes nothing at a server, so that it may be sent twice.
func ReadOnly(method string) bool {
	switch method {
	case MethodPing, "completion/complete", "prompts/get", "prompts/list", "resources/list", "resources/read",
		"resources/templates/list", "tools/list", "tasks/get", "tasks/list":
		return true
	}
	return false
}

// Lasts reports whether a request of this method asks for something for as long as its session lasts.
func Lasts(method string) bool {
	switch method {
	case MethodSetLevel, MethodSubscribe, MethodUnsubscribe:
		return true
	}
	return false
}

// knownMethods are the methods a client may send in any revision.
var knownMethods = map[string]bool{
	MethodInitialize:                   true,
	MethodInitialized:                  true,
	"completion/complete":              true,
	"logging/setLevel":                 true,
	MethodCancelled:                    true,
	"notifications/progress":           true,
	"notifications/roots/list_changed": true,
	"notifications/tasks/status":       true,
	MethodPing:                         true,
	"prompts/get":                      true,
	"prompts/list":                     true,
	"resources/list":                   true,
	"resources/read":                   true,
	"resources/subscribe":              true,
	"resources/templates/list":         true,
	"resources/unsubscribe":            true,
	"server/discover":                  true,
	"subscriptions/listen":             true,
	"tasks/cancel":                     true,
	"tasks/get":                        true,
	"tasks/list":                       true,
	"tasks/result":                     true,
	"tasks/update":                     true,
	"tools/call":                       true,
	"tools/list":                       true,
}

// Methods lists the methods that the protocol defines for clients, in alphabetical order.
func Methods() []string { return slices.Sorted(maps.Keys(knownMethods)) }

// MethodLabel returns method when it is one that the protocol defines for clients, "other" when not, and "" for "". Its
// results are a small fixed set, whatever clients send: fit for a metric's label.
func MethodLabel(method string) string {
	if method == "" || knownMethods[method] {
		return method
	}
	return "other"
}
