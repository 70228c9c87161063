package record

import (
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
func DefaultRedact() []string {
	return []string{
		"**.password", "**.passwd", "**.passphrase", "**.secret", "**.client_secret", "**.token", "**.access_token", "**.refresh_token",
		"**.id_token", "**.api_key", "**.private_key", "**.authorization", "**.credentials", "**.cookie",
	}
}

// Rules say which values of a message are secret. The zero value is none.
type Rules struct{ rules []rule }

// rule is a path as its segments, in the form of fold.
type rule []string

// Segments that stand for others.
const (
	anyKey  = "*"  // any one
	anyKeys = "**" // any number of them, none included
)

// ParseRules reads paths such as params.arguments.password: keys from the top of a message, joined by dots. * is any one key, ** any
// number of keys, none included. Keys are compared without regard to case, hyphens and underscores. Elements of an array need no
// segment of their own; a * may stand for them. At most 64 paths, of at most 256 bytes and 32 keys each.
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
		for _, segment := range segments {
			if segment != anyKey && segment != anyKeys {
				if segment = string(fold(nil, []byte(segment))); segment == "" || strings.Contains(segment, "*") {
					return Rules{}, fmt.Errorf("%q is no path of keys; want keys joined by dots, with * for any one and ** for any number of them, such as params.arguments.password or **.token", path)
				}
			}
			parsed = append(parsed, segment)
		}
		rules.rules = append(rules.rules, parsed)
	}
	return rules, nil
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
		if segment == anyKeys && s&(1<<i) != 0 {
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
		case segment == anyKeys:
			next |= 1 << i
		case segment == anyKey || segment == string(key):
			next |= 1 << (i + 1)
		}
	}
	return r.settle(next)
}

// element is the state of the elements of an array at s: that of the array, or further by a segment that stands for any key.
func (r rule) element(s state) state {
	for i, segment := range r {
		if segment == anyKey && s&(1<<i) != 0 {
			s |= 1 << (i + 1)
		}
	}
	return r.settle(s)
}

// matches reports whether all of the rule has led to a value.
func (r rule) matches(s state) bool { return s&(1<<len(r)) != 0 }
