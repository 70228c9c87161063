package lua_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/yuin/gopher-lua/ast"
	"github.com/yuin/gopher-lua/parse"
)

// command is what a Redis command does with its arguments.
type command struct {
	keys   int  // how many are keys, from the first; everyKey: all
	writes bool // else it only looks
	frees  bool // a server at maxmemory permits it, and then whatever the script writes after it
}

const everyKey = 1000

var commands = map[string]command{
	"TIME":   {},
	"EXISTS": {keys: everyKey}, "PTTL": {keys: 1}, "TYPE": {keys: 1}, "GET": {keys: 1},
	"HGET": {keys: 1}, "HMGET": {keys: 1}, "HGETALL": {keys: 1}, "HLEN": {keys: 1}, "HKEYS": {keys: 1},
	"ZSCORE": {keys: 1}, "ZCARD": {keys: 1}, "ZCOUNT": {keys: 1}, "ZRANGE": {keys: 1}, "ZRANGEBYSCORE": {keys: 1},
	"XRANGE": {keys: 1}, "XREVRANGE": {keys: 1}, "XLEN": {keys: 1},
	"SET": {keys: 1, writes: true}, "HSET": {keys: 1, writes: true}, "HINCRBY": {keys: 1, writes: true},
	"ZADD": {keys: 1, writes: true}, "XADD": {keys: 1, writes: true},
	"UNLINK": {keys: everyKey, writes: true, frees: true}, "PEXPIREAT": {keys: 1, writes: true, frees: true},
	"PERSIST": {keys: 1, writes: true, frees: true}, "HDEL": {keys: 1, writes: true, frees: true},
	"ZREM": {keys: 1, writes: true, frees: true}, "ZREMRANGEBYSCORE": {keys: 1, writes: true, frees: true},
	"XDEL": {keys: 1, writes: true, frees: true},
}

// prefixes is how many of the first ARGV may be prefixes that give an id its keys.
const prefixes = 6

// A walk follows a script as it runs, into the functions it calls, with values that stand for many. A branch is taken both
// ways, a loop not at all, once and twice.
type walk struct {
	faults map[string]bool
	now    state
	frames []*frame
	lists  int // made so far
}

// state is what is known at one point of the script.
type state struct {
	over       bool            // the script or function has returned
	mayWrite   bool            // on some way here it has written
	hasWritten bool            // on every way
	seen       map[string]bool // keys looked at on every way here
}

func (s state) fork() state {
	s.seen = maps.Clone(s.seen)
	return s
}

// meet is what is known where two ways meet.
func meet(a, b state) state {
	switch {
	case a.over:
		return b
	case b.over:
		return a
	}
	seen := make(map[string]bool)
	for key := range a.seen {
		if b.seen[key] {
			seen[key] = true
		}
	}
	return state{mayWrite: a.mayWrite || b.mayWrite, hasWritten: a.hasWritten && b.hasWritten, seen: seen}
}

// keysOfSession begins the name of a list of keys that a script makes of prefixes and an id.
const keysOfSession = "the keys of session "

// frame is a call of a function.
type frame struct {
	returned state
	values   []*value
}

type kind int

const (
	plain    kind = iota // a number or anything else of no interest
	text                 // a string, or what Redis has answered
	big                  // a number that may have 15 digits or more
	key                  // a key
	argument             // one of ARGV
	table
	function
)

type value struct {
	kind   kind
	name   string // of a key: all keys of one session have the same
	listed bool   // a key is in KEYS
	part   bool   // a key is one of several of its name: a look at it is no look at all
	most   int    // of a number: its largest value, 0 when unknown
	of     *value // of a table: what it holds, as far as that matters
	params []string
	body   []ast.Stmt
	scope  *scope
}

type scope struct {
	outer *scope
	names map[string]*value
}

func (s *scope) inner() *scope { return &scope{outer: s, names: make(map[string]*value)} }

func (s *scope) find(name string) (*value, map[string]*value) {
	for ; s != nil; s = s.outer {
		if v, ok := s.names[name]; ok {
			return v, s.names
		}
	}
	return nil, nil
}

// inspect walks through a script and returns what is wrong with it.
func inspect(script string) []string {
	chunk, err := parse.Parse(strings.NewReader(script), "script")
	if err != nil {
		return []string{err.Error()}
	}
	w := &walk{faults: make(map[string]bool), now: state{seen: make(map[string]bool)}, frames: []*frame{{returned: state{over: true}}}}
	globals := (*scope)(nil).inner()
	for name := range strings.FieldsSeq("redis KEYS ARGV tonumber math string table ipairs unpack") {
		globals.names[name] = &value{}
	}
	w.block(chunk, globals)
	return slices.Sorted(maps.Keys(w.faults))
}

func (w *walk) fault(format string, args ...any) { w.faults[fmt.Sprintf(format, args...)] = true }

func (w *walk) block(stmts []ast.Stmt, in *scope) {
	in = in.inner()
	for _, stmt := range stmts {
		if !w.now.over {
			w.statement(stmt, in)
		}
	}
}

func (w *walk) statement(stmt ast.Stmt, in *scope) {
	switch s := stmt.(type) {
	case *ast.LocalAssignStmt:
		values := w.values(s.Exprs, in)
		for i, name := range s.Names {
			in.names[name] = w.named(at(values, i), name)
		}
	case *ast.AssignStmt:
		values := w.values(s.Rhs, in)
		for i, target := range s.Lhs {
			w.assign(target, at(values, i), in)
		}
	case *ast.FuncCallStmt:
		w.value(s.Expr, in)
	case *ast.IfStmt:
		w.value(s.Condition, in)
		before := w.now.fork()
		w.block(s.Then, in)
		then := w.now
		w.now = before
		w.block(s.Else, in)
		w.now = meet(then, w.now)
	case *ast.WhileStmt:
		w.loop(s.Stmts, in, func(*scope) { w.value(s.Condition, in) })
	case *ast.NumberForStmt:
		w.value(s.Init, in)
		limit := w.value(s.Limit, in)
		w.loop(s.Stmts, in, func(in *scope) { in.names[s.Name] = &value{most: limit.most} })
	case *ast.GenericForStmt:
		values := w.values(s.Exprs, in)
		w.loop(s.Stmts, in, func(in *scope) {
			for i, name := range s.Names {
				in.names[name] = &value{}
				if list := at(values, 0); i == 1 && list.of != nil {
					in.names[name] = list.of
				}
			}
		})
	case *ast.ReturnStmt:
		f := w.frames[len(w.frames)-1]
		for i, v := range w.values(s.Exprs, in) {
			if i == len(f.values) {
				f.values = append(f.values, v)
			} else if v.kind == big {
				f.values[i] = v
			}
		}
		f.returned = meet(f.returned, w.now)
		w.now.over = true
	case *ast.BreakStmt:
	case *ast.DoBlockStmt:
		w.block(s.Stmts, in)
	default:
		w.fault("line %d: a %T is not understood here", stmt.Line(), stmt)
	}
}

// named gives one of KEYS the name of its local, which may stand for another key each time.
func (w *walk) named(v *value, name string) *value {
	if !v.listed || !strings.HasPrefix(v.name, "KEYS[") {
		return v
	}
	delete(w.now.seen, name)
	return &value{kind: key, listed: true, name: name}
}

func (w *walk) loop(body []ast.Stmt, in *scope, begin func(*scope)) {
	after := w.now.fork()
	for range 2 {
		inner := in.inner()
		begin(inner)
		w.block(body, inner)
		after = meet(after, w.now.fork())
		// A session's keys that the loop has listed are there only if it ran: where they are used, it has looked at them.
		for name := range w.now.seen {
			if strings.HasPrefix(name, keysOfSession) {
				after.seen[name] = true
			}
		}
	}
	w.now = after
}

func (w *walk) assign(target ast.Expr, v *value, in *scope) {
	switch t := target.(type) {
	case *ast.IdentExpr:
		_, names := in.find(t.Value)
		if names == nil {
			w.fault("line %d: %s is no local", t.Line(), t.Value)
			return
		}
		names[t.Value] = v
	case *ast.AttrGetExpr:
		list := w.value(t.Object, in)
		switch {
		case list.kind == table && v.kind == key:
			list.of = &value{kind: key, name: list.name}
		case list.kind == table && v.kind == table:
			list.of = v
		}
	}
}
