package lua_test

import (
	"slices"
	"strings"
	"testing"
)

// Why some findings are as they should be.
const (
	refusable = "creating and recording may be refused on a full server"
	gate      = "it changes nothing: it asks whether the server is full"
	answers   = "the answer tells what is there after the change"
	fenceLast = "an epoch that is noted in the fence is right, whatever becomes of the rest"
	perOne    = "it handles several sessions, each whole"
	trims     = "what is too much is known after adding"
)

// accepted are those findings, by script.
var accepted = map[string]map[string]string{
	"counts_mend.lua": {
		"looks at counts after its first write": fenceLast,
	},
	"events_append.lua": {
		"looks at events after its first write": trims,
		"the first write is XADD":               refusable,
		"the first write is HSET":               refusable, // not in fact: it follows another
	},
	"frames_append.lua": {
		"the first write is XADD": refusable,
	},
	"note_keep.lua": {
		"the first write is HSET": refusable,
	},
	"place_reserve.lua": {
		"the first write is SET":  refusable,
		"the first write is ZADD": refusable,
	},
	"rate_take.lua": {
		"the first write is SET": refusable,
	},
	"replica_beat.lua": {
		"looks at replicas after its first write": answers,
	},
	"session_create.lua": {
		"the first write is HINCRBY":               gate,
		"looks at lru after its first write":       gate,
		"looks at deadlines after its first write": gate,
		"looks at ended after its first write":     perOne,
		"looks at counts after its first write":    perOne,
		"looks at more after its first write":      answers,
	},
	"session_report.lua": {
		"looks at session after its first write": perOne,
		"looks at pending after its first write": answers,
	},
	"session_terminate.lua": {
		"looks at ended after its first write":  perOne,
		"looks at counts after its first write": perOne,
	},
	"session_update.lua": {
		"looks at more after its first write": answers,
	},
	"sessions_end.lua": {
		"looks at lru after its first write":       fenceLast,
		"looks at deadlines after its first write": fenceLast,
		"looks at counts after its first write":    fenceLast,
		"looks at ended after its first write":     perOne,
	},
	"sessions_mend.lua": {
		"looks at lru after its first write":       fenceLast,
		"looks at deadlines after its first write": fenceLast,
		"looks at ended after its first write":     fenceLast,
	},
	"sessions_purge.lua": {
		"looks at ended after its first write":  fenceLast,
		"looks at counts after its first write": fenceLast,
	},
	"sessions_sweep.lua": {
		"looks at lru after its first write":       fenceLast,
		"looks at counts after its first write":    fenceLast,
		"looks at deadlines after its first write": fenceLast,
		"looks at ended after its first write":     fenceLast,
	},
}

// What a script touches, in which order, with which numbers. Redis stops a script at its first failing command and keeps what
// it wrote, so all looks come before the first write: those at keys made of a prefix and an id, because they fail while the
// slot moves and not all of them are here, and those at KEYS, because they find what the script was not made for. A script
// that handles several sessions holds to it for each session: each is changed whole or not at all.
func TestScriptsKeepTheRulesOfKeysWritesAndNumbers(t *testing.T) {
	t.Parallel()
	texts := scripts(t)
	for file, text := range texts {
		if strings.HasSuffix(file, ".inc.lua") {
			continue
		}
		faults := inspect(expand(text, texts))
		for _, fault := range faults {
			if accepted[file][fault] == "" {
				t.Errorf("%s: %s", file, fault)
			}
		}
		for fault := range accepted[file] {
			if !slices.Contains(faults, fault) {
				t.Errorf("%s: %q is accepted, but does not occur", file, fault)
			}
		}
	}
}

func TestBrokenScriptsAreFound(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		`redis.call('GET', 'shadowcat:meta')`:                                        "neither of KEYS nor",
		`redis.call('HGET', redis.call('GET', KEYS[1]), 's')`:                        "neither of KEYS nor",
		`redis.call('GET', ARGV[1])`:                                                 "neither of KEYS nor",
		`redis.call('GET', ARGV[7] .. ARGV[8])`:                                      "neither of KEYS nor",
		`redis.call('GET', 'x' .. ARGV[1])`:                                          "neither of KEYS nor",
		`local function f(k) redis.call('GET', k) end f(KEYS[1]) f(ARGV[1])`:         "neither of KEYS nor",
		`local k = redis.call('ZRANGE', KEYS[1], 0, 0)[1] redis.call('EXISTS', k)`:   "neither of KEYS nor",
		`local keys = { KEYS[1], ARGV[1] } redis.call('UNLINK', keys[3] or ARGV[9])`: "neither of KEYS nor",
		`redis.call(ARGV[1], KEYS[1])`:                                               "no fixed name",
		`redis.call('FLUSHALL')`:                                                     "FLUSHALL is new",
		`x = 1`:                                                                      "x is no local",
		`return undefined`:                                                           "undefined is no local",
		`function f() end`:                                                           "is not understood here",
		`redis.call('HSET', KEYS[1], 'a', 1)`:                                        "the first write is HSET",
		`if ARGV[1] then redis.call('HDEL', KEYS[1], 'a') end redis.call('INCRBY', KEYS[1])`:                                                               "INCRBY is new",
		`if ARGV[1] then redis.call('HDEL', KEYS[1], 'a') end redis.call('ZADD', KEYS[1], 1, 'x')`:                                                         "the first write is ZADD",
		`for i = 1, #ARGV do redis.call('HDEL', KEYS[1], 'a') end redis.call('ZADD', KEYS[1], 1, 'x')`:                                                     "the first write is ZADD",
		`redis.call('ZREM', KEYS[1], 'a') local b = KEYS[2] return redis.call('GET', b)`:                                                                   "looks at b after its first write",
		`local a, b = KEYS[1], KEYS[2] for i = 1, 2 do redis.call('GET', a) redis.call('ZREM', a, i) redis.call('GET', b) end`:                             "looks at b after its first write",
		`local k = ARGV[1] .. ARGV[7] redis.call('UNLINK', k)`:                                                                                             "UNLINK writes a key that is not in KEYS before a look at it",
		`for i = 1, 2 do local keys = {} for n = 1, 6 do keys[n] = ARGV[n] .. i end redis.call('UNLINK', unpack(keys)) end`:                                "before a look at it",
		`local keys = {} for n = 1, 6 do keys[n] = ARGV[n] .. ARGV[7] end redis.call('GET', keys[1]) redis.call('UNLINK', keys[2])`:                        "before a look at it",
		`local time = redis.call('TIME') return 'at ' .. time[1] * 1000000 + time[2]`:                                                                      "becomes a text",
		`local now_us = tonumber(ARGV[1]) return { 'x', now_us .. '' }`:                                                                                    "now_us becomes a text",
		`local time = redis.call('TIME') local t = math.max(time[1] * 1000000, 5) redis.call('PEXPIREAT', KEYS[1], 1) redis.call('HSET', KEYS[1], 't', t)`: "is given to HSET",
		`local arrival = tonumber(ARGV[1]) + 1 redis.call('ZADD', KEYS[1], arrival, 'x')`:                                                                  "arrival is given to ZADD",
		`local function f(sum) return sum + 1 end redis.call('SET', KEYS[1], f(tonumber(ARGV[1])))`:                                                        "is given to SET",
	} {
		if found := strings.Join(inspect(script), "; "); !strings.Contains(found, want) {
			t.Errorf("%s\nfound %q, want %q", script, found, want)
		}
	}
}

func TestGoodScriptsPass(t *testing.T) {
	t.Parallel()
	for _, script := range []string{
		`local function f(k) return redis.call('GET', k) end return { f(KEYS[1]), f(KEYS[2]) }`,
		`local a = KEYS[1] redis.call('GET', a) redis.call('PEXPIREAT', a, 1) redis.call('HSET', a, 'x', redis.call('HLEN', a))`,
		`local time = redis.call('TIME') local now_us = time[1] * 1000000 + time[2]
		 redis.call('PERSIST', KEYS[1]) redis.call('SET', KEYS[1], string.format('%.0f', now_us)) return now_us`,
		`local keys = {} for i = 1, 6 do keys[i] = ARGV[i] .. ARGV[7] end
		 redis.call('EXISTS', unpack(keys)) redis.call('UNLINK', unpack(keys, 2)) redis.call('HSET', keys[1], 'z', 1)`,
	} {
		if faults := inspect(script); len(faults) > 0 {
			t.Errorf("%s\nfound %q", script, faults)
		}
	}
}
