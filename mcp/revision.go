package mcp

import "slices"

// Protocol revisions. Those before 2026-07-28 have sessions.
const (
	Revision20241105 = "2024-11-05"
	Revision20250326 = "2025-03-26"
	Revision20250618 = "2025-06-18"
	Revision20251125 = "2025-11-25"
	Revision20260728 = "2026-07-28"
)

// sessionRevisions lists the revisions with sessions, oldest first. 2024-11-05 had another HTTP transport, but SDKs speak
// it over Streamable HTTP too, where it behaves as 2025-03-26 does.
var sessionRevisions = []string{Revision20241105, Revision20250326, Revision20250618, Revision20251125}

// SessionRevisions lists the protocol revisions that have sessions, oldest first. 2024-11-05 is among them: a client that
// asks for it over Streamable HTTP is treated like one of 2025-03-26. Its own transport (HTTP+SSE) is not spoken.
func SessionRevisions() []string { return slices.Clone(sessionRevisions) }

// Revisions lists the protocol revisions that are known here, oldest first.
func Revisions() []string { return append(SessionRevisions(), Revision20260728) }

// HasSessions reports whether revision is a known one with sessions.
func HasSessions(revision string) bool { return slices.Contains(sessionRevisions, revision) }

// AllowsBatch reports whether messages of this revision may be sent in a JSON array. 2025-06-18 removed that.
func AllowsBatch(revision string) bool {
	return revision == Revision20241105 || revision == Revision20250326
}

// Primes reports whether streams of this revision begin with an event that has an id and no data, by which a client can
// resume before the first message. Clients of older revisions may take it for a broken message.
func Primes(revision string) bool { return revision >= Revision20251125 && HasSessions(revision) }

// Era is the half of the protocol's history that a message belongs to.
type Era string

// The eras.
const (
	EraSession   Era = "session"   // up to 2025-11-25: initialize, then a session
	EraStateless Era = "stateless" // from 2026-07-28: every request stands alone
	EraUnknown   Era = "none"      // not told, or a version that never existed
)

// EraOf tells the era of one HTTP request from the value of its MCP-Protocol-Version header and from the protocol version
// in its message's _meta, each empty when absent. The values decide: 2025-06-18 sends the header too. A request without
// either belongs to the session era, which began before both.
//
// An unknown version in _meta is stateless, because only that era puts one there. An unknown header value is stateless
// when it is a date that is not before 2026-07-28, else [EraUnknown]: no revision has or will have that name.
func EraOf(header, meta string) Era {
	switch {
	case meta != "" && !HasSessions(meta):
		return EraStateless
	case header == "" || HasSessions(header):
		return EraSession
	case isDate(header) && header >= Revision20260728:
		return EraStateless
	default:
		return EraUnknown
	}
}

// isDate reports whether s looks like 2026-07-28.
func isDate(s string) bool {
	if len(s) != len(Revision20260728) {
		return false
	}
	for i := range len(s) {
		if i == 4 || i == 7 {
			if s[i] != '-' {
				return false
			}
		} else if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
