package record

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of rules.
const (
	maxRules    = 64
	maxRuleLen  = 256
	maxSegments = 32 // and less than the bits of a state
)

// DefaultRedact are the paths that are redacted unless others are configured: values that by their name are secrets, wherever they are.
// Endings of names stand for all that is called so, such as db_password or aws_secret_access_key. A plain ending in "token" does not: a
// progressToken is no secret.
func DefaultRedact() []string {
	return []string{
		"**.*password", "**.*passwd", "**.*passphrase", "**.pwd", "**.*_pwd", "**.*secret", "**.*secret_key", "**.*access_key", "**.*private_key*",
		"**.*api_key", "**.token", "**.*access_token", "**.*refresh_token", "**.*auth_token", "**.*api_token", "**.*session_token",
		"**.*bearer_token", "**.id_token", "**.jwt", "**.bearer", "**.*authorization", "**.credential", "**.*credentials", "**.*cookie", "**.*cookies",
	}
}

// Rules say which values of a message are secret. The zero value is none.
type Rules struct{ rules []rule }

// Segments that stand for others, as they are written.
const (
	anyKey  = "*"  // any one; beside a name: more of it
	anyKeys = "**" // any number of them, none included
)

// rule is a path as its segments.
type rule []segment

// segment is a part of a path: it stands for one key, or for any number of them, none included.
type segment struct {
	many       bool
	name       string // in the form of fold
	head, tail bool   // there may be more before the name, after it
}

// isAny reports whether the segment stands for any one key.
func (s segment) isAny() bool { return s.head && s.name == "" }

// names reports whether the segment stands for a folded key.
func (s segment) names(key []byte) bool {
	switch {
	case len(key) < len(s.name):
		return false
	case s.head && s.tail:
		return bytes.Contains(key, []byte(s.name))
	case s.head:
		return string(key[len(key)-len(s.name):]) == s.name
	case s.tail:
		return string(key[:len(s.name)]) == s.name
	default:
		return string(key) == s.name
	}
}

// ParseRules reads paths such as params.arguments.password: keys from the top of a message, joined by dots. * is any one key, ** any
// number of keys, none included; a * at the beginning or the end of a key stands for more of it, as in *password. Keys are compared
// without regard to case, hyphens and underscores. Elements of an array need no segment of their own; a * may stand for them. At most 64
// paths, of at most 256 bytes and 32 keys each.
func ParseRules(paths []string) (Rules, error) {
	if len(paths) > maxRules {
		return Rules{}, fmt.Errorf("%d paths are more than %d", len(paths), maxRules)
	}
	var rules Rules
	for _, path := range paths {
		segments := strings.Split(path, ".")
		if len(path) > maxRuleLen || len(segments) > maxSegments {
			return Rules{}, fmt.Errorf("a path of %d bytes and %d keys is too long; want at most %d bytes and %d keys", len(path), len(segments), maxRuleLen, maxSegments)
		}
		parsed := make(rule, 0, len(segments))
		for _, text := range segments {
			segment, ok := parseSegment(text)
			if !ok {
				return Rules{}, fmt.Errorf("%q is no path of keys; want keys joined by dots, with * for any one, ** for any number of them, and * for more before or after a part of one, such as params.arguments.password, **.token or **.*_password", path)
			}
			parsed = append(parsed, segment)
		}
		rules.rules = append(rules.rules, parsed)
	}
	return rules, nil
}

// parseSegment returns false for what stands for no key.
func parseSegment(text string) (segment, bool) {
	switch text {
	case anyKeys:
		return segment{many: true}, true
	case anyKey:
		return segment{head: true}, true
	}
	name, head := strings.CutPrefix(text, anyKey)
	name, tail := strings.CutSuffix(name, anyKey)
	name = string(fold(nil, []byte(name)))
	return segment{name: name, head: head, tail: tail}, name != "" && !strings.Contains(name, anyKey)
}

// fold appends a key in the form in which keys are compared: of letters that differ in case only the first one, no hyphens, no
// underscores. Decoders that do not care about case take keys for the same by the same table.
func fold(dst, key []byte) []byte {
	for len(key) > 0 {
		r, size := rune(key[0]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(key)
		}
		key = key[size:]
		switch {
		case r == '_' || r == '-':
		case r >= 'a' && r <= 'z': // the first of their letters is ASCII, too
			dst = append(dst, byte(r)-'a'+'A')
		case r < utf8.RuneSelf:
			dst = append(dst, byte(r))
		default:
			least := r
			for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
				least = min(least, other)
			}
			dst = utf8.AppendRune(dst, least)
		}
	}
	return dst
}

// state is how far a rule has got on the way to a value: bit i is set when its first i segments have led there.
type state uint64

// start is where a rule is at the top of a message.
func (r rule) start() state { return r.settle(1) }

// settle adds where ** may have led by standing for no key.
func (r rule) settle(s state) state {
	for i, segment := range r {
		if segment.many && s&(1<<i) != 0 {
			s |= 1 << (i + 1)
		}
	}
	return s
}

// member is the state of the value of a folded key, in an object at s.
func (r rule) member(s state, key []byte) state {
	var next state
	for i, segment := range r {
		switch {
		case s&(1<<i) == 0:
		case segment.many:
			next |= 1 << i
		case segment.names(key):
			next |= 1 << (i + 1)
		}
	}
	return r.settle(next)
}

// element is the state of the elements of an array at s: that of the array, or further by a segment that stands for any key.
func (r rule) element(s state) state {
	for i, segment := range r {
		if segment.isAny() && s&(1<<i) != 0 {
			s |= 1 << (i + 1)
		}
	}
	return r.settle(s)
}

// matches reports whether all of the rule has led to a value.
func (r rule) matches(s state) bool { return s&(1<<len(r)) != 0 }
