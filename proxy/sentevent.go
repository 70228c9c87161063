package proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// origin is where an event of a session's own stream comes from.
type origin struct {
	event   string // the upstream's own id of it; empty when it has none
	version int64  // of the record whose upstream session said it
	session string // the upstream's id of that session
}

// originOf is the origin of an event of the upstream session that a session has.
func originOf(s cluster.Session, event string) origin {
	return origin{event: event, version: s.Version, session: s.UpstreamSession}
}

// sealLen is how many bytes a seal has: half of a SHA-256 digest. It is written in base64url.
const sealLen = sha256.Size / 2

// sealedOrigin is what an event's id tells of its origin: what the upstream calls the event. A reader that dies before it could store an event
// leaves nobody who knows that but the client, whose next reader is to ask the upstream for what follows. It is sealed with the
// upstream's id of its session, which no client sees: nobody can have a replica ask for an event that it was not sent, nor at another
// position. The zero value tells nothing.
type sealedOrigin struct {
	event   string
	version int64
	seal    string
}

// secretLen is from how many characters on an upstream's id of a session is taken for a secret, and not for a number that other ids
// have in them by chance.
const secretLen = 8

// sealed is what the id of the event at a position tells of its origin; nothing when the upstream has no id of it, or no sessions, or
// when the one has the other in it: no client sees the upstream's id of its session.
func (o origin) sealed(position int64) sealedOrigin {
	if o.event == "" || len(o.event) > cluster.MaxUpstreamEvent || o.session == "" {
		return sealedOrigin{}
	}
	if len(o.session) >= secretLen && strings.Contains(o.event, o.session) {
		return sealedOrigin{}
	}
	return sealedOrigin{event: o.event, version: o.version, seal: sealOf(o.session, position, o.event)}
}

// isSealedBy reports whether the id was made for the upstream session that a session has.
func (e eventID) isSealedBy(s cluster.Session) bool {
	return s.UpstreamSession != "" && hmac.Equal([]byte(e.from.seal), []byte(sealOf(s.UpstreamSession, e.position, e.from.event)))
}

// sent is what the store is told of the event.
func (e eventID) sent() cluster.SentEvent {
	return cluster.SentEvent{UpstreamEvent: e.from.event, Claim: e.claim, Version: e.from.version}
}

func sealOf(upstreamSession string, position int64, event string) string {
	mac := hmac.New(sha256.New, []byte(upstreamSession))
	mac.Write(strconv.AppendInt(nil, position, 10))
	mac.Write([]byte(" " + event))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:sealLen])
}

// isSeal reports whether a text has the form of a seal.
func isSeal(text string) bool {
	seal, err := base64.RawURLEncoding.DecodeString(text)
	return err == nil && len(seal) == sealLen && base64.RawURLEncoding.EncodeToString(seal) == text // line ends are decoded, too
}
