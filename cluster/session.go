package cluster

import (
	"strings"
	"time"

	"github.com/google/uuid"
)

// Bounds of the strings in a session's record. They come from outside (a client's initialize message, an upstream's
// answer), so they are cut or refused before they reach the store.
const (
	maxNameLen            = 64        // bytes; longer upstream names, principals and revisions are refused
	maxClientNameLen      = 256       // bytes; longer names are cut
	maxUpstreamSessionLen = 1024      // bytes; longer ids are refused
	maxInitializeLen      = 64 * 1024 // bytes; longer messages are not kept
)

// ID names a session: a UUIDv7, safe to log and to show. It is not a credential; see [Token].
type ID = uuid.UUID

// ParseID reads an ID as operators type it: the 36 character form, and no other. The error is [ErrInvalidID].
func ParseID(s string) (ID, error) {
	if len(s) != 36 {
		return ID{}, ErrInvalidID
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return ID{}, ErrInvalidID
	}
	return id, nil
}

// Principal is who owns a session: a digest, never a name, of a verified identity. The zero value means "nobody": there
// was no authentication. 1 to 64 letters, digits, hyphens and underscores.
type Principal string

// Valid reports whether p is nobody or well formed. Stores may make keys of it.
func (p Principal) Valid() bool {
	for _, c := range []byte(p) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return len(p) <= maxNameLen
}

// Session is a session's record, as it was when the store was asked. It is a value: changing it changes nothing else.
type Session struct {
	ID        ID
	Status    Status
	Principal Principal
	// Version moves with every change of Status or of the upstream mapping, and with nothing else. It is that of no other change: where
	// a failover has lost some, the store has an earlier one again, and the next change gets one that none of those had. Its last three
	// digits count the changes; the rest is 0 until the session is recovered.
	Version int64

	// Upstream is the configured name of the MCP server, Endpoint the address that this session is pinned to.
	Upstream string
	Endpoint string
	// UpstreamSession is the upstream's own session id, empty when it gave none. It is a credential at the upstream: it
	// must not be logged or shown.
	UpstreamSession string
	// Revision is the protocol revision agreed on, such as 2025-11-25; empty while initializing.
	Revision string
	// ClientName and ClientVersion are what the client called itself in initialize.
	ClientName    string
	ClientVersion string

	CreatedAt      time.Time
	LastActivityAt time.Time
	// DeadlineAt is when a live session ends unless something happens; for an ended one, when its record is purged. Zero
	// means never: idle timeout and maximum age are both off.
	DeadlineAt time.Time
	EndedAt    time.Time // zero while the session lives

	// Requests counts the client's HTTP requests that were admitted. A killed replica may lose one report interval of it.
	Requests int64
	// Pending counts requests in flight that have outlived one report interval.
	Pending int
}

const (
	// activeVersion is the version that a session has when its upstream has answered initialize: it was created, and activated.
	activeVersion = 2
	// versionCount bounds the count of changes, which is what a version has in its last three digits.
	versionCount = 1000
)

// Generation tells the upstream sessions of an active session apart: 0 is the first, and each one that a recovery has made has a number of
// its own, a greater one the later it was made.
func (s Session) Generation() int64 { return max(s.Version-activeVersion, 0) }

// Recoveries is how often the session has been given another upstream session, up to 996 times.
func (s Session) Recoveries() int {
	others := activeVersion
	if !s.EndedAt.IsZero() {
		others++
	}
	return max(int(s.Version%versionCount)-others, 0)
}

// EndedAtOrBefore reports whether the session no longer serves requests at the moment now: it is ended, or past its
// deadline and only waits for the sweeper.
func (s Session) EndedAtOrBefore(now time.Time) bool {
	return !s.Status.Live() || (!s.DeadlineAt.IsZero() && !now.Before(s.DeadlineAt))
}

// NewSession is what is known of a session before its upstream has answered initialize.
type NewSession struct {
	Upstream      string // at most 64 bytes
	Endpoint      string
	Principal     Principal
	ClientName    string // cut to 256 bytes
	ClientVersion string // cut to 256 bytes
	// Initialize is the client's initialize message, kept so that an upstream session can be made anew. It is not kept
	// when it is over 64 KiB.
	Initialize []byte
}

// Activation is what the upstream's answer to initialize adds.
type Activation struct {
	// UpstreamSession is the upstream's session id: at most 1,024 bytes, empty when it gave none.
	UpstreamSession string
	// Revision is the protocol revision the upstream chose: at most 64 bytes.
	Revision string
}

// cut shortens s to at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
