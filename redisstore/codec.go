package redisstore

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// maxInline is the longest value a record holds, in bytes. One longer value would turn the whole hash from a listpack
// into a hash table, at three to five times the memory; such values live in the hash `more`.
const maxInline = 64

// The fields of a record, in the order in which lua/record.inc.lua reads them. Names are short because every session
// stores them.
const (
	fieldStatus          = iota // s: one letter, see statusCodes
	fieldDigest                 // d: SHA-256 of the token's secret, raw
	fieldPrincipal              // p: absent without authentication
	fieldVersion                // v
	fieldUpstream               // u: its configured name
	fieldEndpoint               // e: URL
	fieldUpstreamSession        // x: the upstream's own session id
	fieldRevision               // r: protocol revision
	fieldClientName             // n
	fieldClientVersion          // w
	fieldCreated                // c: ms since 1970
	fieldActivity               // a: ms since 1970
	fieldArrival                // t: theoretical arrival time of the request rate, us since 1970
	fieldRequests               // q
	fieldWriter                 // o: who changed the mapping last
	fieldMore                   // m: 1 when some strings live in `more`
	fieldEnded                  // z: ms since 1970
	numFields
)

var statusCodes = map[cluster.Status]string{
	cluster.StatusInitializing: "i",
	cluster.StatusActive:       "a",
	cluster.StatusClosed:       "c",
	cluster.StatusExpired:      "x",
	cluster.StatusEvicted:      "v",
	cluster.StatusTerminated:   "t",
	cluster.StatusFailed:       "f",
}

var statusByCode = func() map[string]cluster.Status {
	m := make(map[string]cluster.Status, len(statusCodes))
	for status, code := range statusCodes {
		m[code] = status
	}
	return m
}()

// never is the score of a session without an end: the year 5138 in ms. It has 14 digits, because a longer score would
// not survive being turned into text and back by every Lua.
const never = 99_999_999_999_999

var errMalformedReply = errors.New("malformed reply of the store")

// record collects the fields to store of a session: short ones for the hash `session`, long ones for `more`.
type record struct {
	short, long []any
}

// set stores a value, where its length allows. Empty values are not stored. It is for the fields that lua/record.inc.lua
// looks for in both hashes.
func (r *record) set(field, value string) {
	switch {
	case value == "":
	case len(value) <= maxInline:
		r.short = append(r.short, field, value)
	default:
		if len(r.long) == 0 {
			r.short = append(r.short, "m", "1")
		}
		r.long = append(r.long, field, value)
	}
}

// keep stores a value in the record, whatever its length: the caller of the store sees to it that it is short.
func (r *record) keep(field, value string) {
	if value != "" {
		r.short = append(r.short, field, value)
	}
}

// args returns the tail of a script's ARGV: the number of short fields, then all fields and values.
func (r *record) args() []any {
	return append(append([]any{len(r.short) / 2}, r.short...), r.long...)
}

func encodeCreation(c cluster.Creation) []any {
	var r record
	r.keep("p", string(c.Principal))
	r.keep("u", c.Upstream)
	r.set("e", c.Endpoint)
	r.set("n", c.ClientName)
	r.set("w", c.ClientVersion)
	if len(c.Initialize) > 0 { // never in the record, and not read back with it: no mark in field m
		r.long = append(r.long, "i", c.Initialize)
	}
	return r.args()
}

func encodeChange(c cluster.Change) []any {
	var r record
	r.set("e", c.Endpoint)
	if c.UpstreamSession == "" {
		r.short = append(r.short, "x", "") // the upstream gave none: the one before is void
	}
	r.set("x", c.UpstreamSession)
	r.keep("r", c.Revision)
	return r.args()
}

// decodeAnswer reads the answer that lua/record.inc.lua builds: the store's clock, the session's end, the number of
// pending requests, and the fields.
func decodeAnswer(id cluster.ID, reply []any) (cluster.Session, time.Time, error) {
	return decodeAnswerWith(decoder{}, id, reply)
}

// decodeListed is decodeAnswer for listings: one record that somebody has spoiled must not hide the others. What is no number
// in it is zero, and what is no status none.
func decodeListed(id cluster.ID, reply []any) (cluster.Session, time.Time, error) {
	return decodeAnswerWith(decoder{tolerant: true}, id, reply)
}

func decodeAnswerWith(d decoder, id cluster.ID, reply []any) (cluster.Session, time.Time, error) {
	if len(reply) != 3+numFields {
		return cluster.Session{}, time.Time{}, fmt.Errorf("%w: session %s has %d parts, not %d", errMalformedReply, id, len(reply), 3+numFields)
	}
	now := d.moment(reply[0])
	s := d.session(id, reply[3:])
	s.Pending = int(d.number(reply[2]))
	s.DeadlineAt = d.moment(reply[1])
	if d.err != nil {
		return cluster.Session{}, time.Time{}, fmt.Errorf("session %s: %w", id, d.err)
	}
	return s, now, nil
}

const (
	// purgedFields is how many parts finish.inc.lua tells of a session that was purged: id, nothing.
	purgedFields = 2
	// endedFields is the same of one that was ended: id, purge time, record.
	endedFields = 2 + numFields
)

// decodeGone reads what finish.inc.lua tells is gone: the sessions that were ended, and those whose records were purged.
func decodeGone(reply []any) (ended []cluster.Session, purged []cluster.ID, err error) {
	d := decoder{tolerant: true} // they are gone, whatever else is in them
	for len(reply) >= purgedFields {
		id, err := cluster.ParseID(d.text(reply[0]))
		if reply[1] == nil {
			if err == nil { // else somebody has put something else into an index
				purged = append(purged, id)
			}
			reply = reply[purgedFields:]
			continue
		}
		if err != nil || len(reply) < endedFields {
			return nil, nil, fmt.Errorf("%w: a session ended has %d parts, or no id", errMalformedReply, len(reply))
		}
		s := d.session(id, reply[purgedFields:endedFields])
		s.DeadlineAt = d.moment(reply[1])
		ended, reply = append(ended, s), reply[endedFields:]
	}
	if len(reply) > 0 {
		return nil, nil, fmt.Errorf("%w: a session that is gone has no more than an id", errMalformedReply)
	}
	return ended, purged, d.err
}

// decoder reads values and keeps the first error.
type decoder struct {
	err error
	// tolerant takes texts that are no number for zero, and statuses that are unknown for none.
	tolerant bool
}

func (d *decoder) session(id cluster.ID, fields []any) cluster.Session {
	status, known := statusByCode[d.text(fields[fieldStatus])]
	if !known && !d.tolerant {
		d.fail("a status", fields[fieldStatus])
	}
	return cluster.Session{
		ID:              id,
		Status:          status,
		Principal:       cluster.Principal(d.text(fields[fieldPrincipal])),
		Version:         d.number(fields[fieldVersion]),
		Upstream:        d.text(fields[fieldUpstream]),
		Endpoint:        d.text(fields[fieldEndpoint]),
		UpstreamSession: d.text(fields[fieldUpstreamSession]),
		Revision:        d.text(fields[fieldRevision]),
		ClientName:      d.text(fields[fieldClientName]),
		ClientVersion:   d.text(fields[fieldClientVersion]),
		CreatedAt:       d.moment(fields[fieldCreated]),
		LastActivityAt:  d.moment(fields[fieldActivity]),
		EndedAt:         d.moment(fields[fieldEnded]),
		Requests:        d.number(fields[fieldRequests]),
	}
}

// text reads a string; nothing is the empty one.
func (d *decoder) text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return strings.Clone(v) // do not keep the whole reply alive
	case int64:
		return strconv.FormatInt(v, 10)
	default:
		d.fail("a string", v)
		return ""
	}
}

// number reads an integer; nothing is zero. Scores may come as doubles.
func (d *decoder) number(v any) int64 {
	switch v := v.(type) {
	case nil:
		return 0
	case int64:
		return v
	case string:
		if v == "" {
			return 0
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			f, ferr := strconv.ParseFloat(v, 64)
			if ferr != nil || !(math.Abs(f) <= 1<<53) { // not a number is neither
				if !d.tolerant {
					d.fail("a number", v)
				}
				return 0
			}
			n = int64(f)
		}
		return n
	default:
		d.fail("a number", v)
		return 0
	}
}

// numbers reads integers that stand in a text with spaces between them.
func (d *decoder) numbers(v any) (all []int64) {
	for one := range strings.FieldsSeq(d.text(v)) {
		all = append(all, d.number(one))
	}
	return all
}

// moment reads a time in ms since 1970; nothing and never are the zero time.
func (d *decoder) moment(v any) time.Time {
	ms := d.number(v)
	if ms == 0 || ms == never {
		return time.Time{}
	}
	if ms < -never || ms > never { // no year of four digits, which is all that JSON can tell
		if !d.tolerant {
			d.fail("a time", v)
		}
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// millis reads a duration in ms; a negative one stays negative: never.
func (d *decoder) millis(v any) time.Duration { return duration(d.number(v), time.Millisecond) }

// duration is n times a unit, or as much of that as a duration holds.
func duration(n int64, unit time.Duration) time.Duration {
	most := int64(math.MaxInt64 / unit)
	return time.Duration(min(max(n, -most), most)) * unit
}

// truth reads 1 or 0. Nothing else will do: a session must not be taken for gone because a reply makes no sense.
func (d *decoder) truth(v any) bool {
	n, isNumber := v.(int64)
	if !isNumber || n != 0 && n != 1 {
		d.fail("0 or 1", v)
	}
	return isNumber && n == 1
}

// decodeNumber reads a reply of one number.
func decodeNumber(reply []any) (int, error) {
	if len(reply) != 1 {
		return 0, unavailable(errMalformedReply)
	}
	var d decoder
	n := d.number(reply[0])
	if d.err != nil {
		return 0, unavailable(d.err)
	}
	return int(n), nil
}

// fail keeps the type of what was found, not its text: a record holds secrets.
func (d *decoder) fail(want string, got any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: want %s, got a %T", errMalformedReply, want, got)
	}
}
