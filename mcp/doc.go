// Package mcp holds what a proxy must know of the Model Context Protocol's wire: protocol revisions and their eras, header
// names, how much of a JSON-RPC message must be looked at, server-sent events, and the shape of an error answer.
//
// It knows facts, not policy: nothing here decides who may do what. All readers take input from strangers, so each of them
// is bounded and none of them trusts a length, a depth or an encoding.
package mcp
