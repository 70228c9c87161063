package lua_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
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
	"EXISTS": {keys: everyKey}, "PTTL": {keys: 1}, "GET": {keys: 1},
	"HGET": {keys: 1}, "HMGET": {keys: 1}, "HGETALL": {keys: 1}, "HLEN": {keys: 1},
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
		if list.kind == table && v.kind == key {
			list.of = &value{kind: key, name: list.name}
		}
	}
}

// values evaluates a list of expressions, of which the last may be a call with several values.
func (w *walk) values(exprs []ast.Expr, in *scope) []*value {
	var all []*value
	for i, e := range exprs {
		if call, ok := e.(*ast.FuncCallExpr); ok && i == len(exprs)-1 {
			return append(all, w.call(call, in)...)
		}
		all = append(all, w.value(e, in))
	}
	return all
}

func at(values []*value, i int) *value {
	if i < len(values) {
		return values[i]
	}
	return &value{}
}

func (w *walk) value(e ast.Expr, in *scope) *value {
	switch e := e.(type) {
	case *ast.StringExpr:
		return &value{kind: text}
	case *ast.NumberExpr:
		n, _ := strconv.ParseFloat(e.Value, 64)
		return &value{most: int(n)}
	case *ast.IdentExpr:
		v, _ := in.find(e.Value)
		if v == nil {
			w.fault("line %d: %s is no local", e.Line(), e.Value)
			return &value{}
		}
		if v.kind == plain && (strings.HasSuffix(e.Value, "_us") || e.Value == "arrival" || e.Value == "sum") {
			return &value{kind: big, name: e.Value}
		}
		return v
	case *ast.AttrGetExpr:
		return w.element(e, in)
	case *ast.TableExpr:
		w.lists++
		list := &value{kind: table, name: fmt.Sprintf("the keys of session %d", w.lists)}
		for _, field := range e.Fields {
			if v := w.value(field.Value, in); v.kind == key {
				list.of = v
			}
		}
		return list
	case *ast.FuncCallExpr:
		return at(w.call(e, in), 0)
	case *ast.FunctionExpr:
		return &value{kind: function, params: e.ParList.Names, body: e.Stmts, scope: in}
	case *ast.LogicalOpExpr:
		return w.either(w.value(e.Lhs, in), w.value(e.Rhs, in))
	case *ast.StringConcatOpExpr:
		return w.concat(e, in)
	case *ast.ArithmeticOpExpr:
		return arithmetic(e.Operator, w.value(e.Lhs, in), w.value(e.Rhs, in))
	case *ast.RelationalOpExpr:
		w.value(e.Lhs, in)
		w.value(e.Rhs, in)
	case *ast.UnaryMinusOpExpr:
		return w.value(e.Expr, in)
	case *ast.UnaryNotOpExpr:
		w.value(e.Expr, in)
	case *ast.UnaryLenOpExpr:
		w.value(e.Expr, in)
	}
	return &value{}
}

// element is what stands at some place of a table.
func (w *walk) element(e *ast.AttrGetExpr, in *scope) *value {
	index := w.value(e.Key, in)
	if name, ok := e.Object.(*ast.IdentExpr); ok {
		switch name.Value {
		case "ARGV":
			return &value{kind: argument, most: index.most}
		case "KEYS":
			if _, fixed := e.Key.(*ast.NumberExpr); fixed {
				return &value{kind: key, listed: true, name: fmt.Sprintf("KEYS[%d]", index.most)}
			}
			return &value{kind: key, listed: true, name: "KEYS[*]"}
		case "redis", "math", "string", "table":
			return &value{}
		}
	}
	list := w.value(e.Object, in)
	switch {
	case list.of != nil:
		return list.of
	case list.kind == text:
		return list
	default:
		return &value{}
	}
}

// either is one of two values.
func (w *walk) either(a, b *value) *value {
	for _, v := range []*value{a, b} {
		if v.kind == big {
			return v
		}
	}
	if a.kind == text && b.kind == text {
		return a
	}
	return &value{}
}

func arithmetic(operator string, a, b *value) *value {
	const million = 1_000_000 // makes microseconds of seconds
	if operator != "/" && (a.kind == big || b.kind == big || operator == "*" && max(a.most, b.most) >= million) {
		return &value{kind: big, name: "a number of microseconds"}
	}
	return &value{}
}

// concat joins texts. A prefix from ARGV and an id are a key.
func (w *walk) concat(e *ast.StringConcatOpExpr, in *scope) *value {
	a, b := w.value(e.Lhs, in), w.value(e.Rhs, in)
	for _, v := range []*value{a, b} {
		if v.kind == big {
			w.fault("line %d: %s becomes a text other than by string.format", e.Line(), v.name)
		}
	}
	if a.kind == argument && a.most >= 1 && a.most <= prefixes {
		return &value{kind: key}
	}
	return &value{kind: text}
}

func (w *walk) call(e *ast.FuncCallExpr, in *scope) []*value {
	name := calledName(e)
	if name == "redis.call" {
		return []*value{w.command(e, in)}
	}
	args := w.values(e.Args, in)
	switch name {
	case "string.format", "string.match":
		return []*value{{kind: text}, {kind: text}}
	case "ipairs", "unpack":
		return args[:1]
	case "math.min", "math.max", "math.floor", "math.ceil", "tonumber":
		for _, v := range args {
			if v.kind == big {
				return []*value{v}
			}
		}
		return []*value{{}}
	case "redis.error_reply", "table.insert", "redis.status_reply":
		return []*value{{}}
	}
	f, _ := in.find(name)
	if f == nil || f.kind != function {
		w.fault("line %d: calls %s, which is not defined here", e.Line(), name)
		return nil
	}
	inner := f.scope.inner()
	for i, param := range f.params {
		inner.names[param] = at(args, i)
	}
	w.frames = append(w.frames, &frame{returned: state{over: true}})
	w.block(f.body, inner)
	done := w.frames[len(w.frames)-1]
	w.frames = w.frames[:len(w.frames)-1]
	w.now = meet(w.now, done.returned)
	return done.values
}

// calledName is the name of what is called, with the library it is of.
func calledName(e *ast.FuncCallExpr) string {
	switch f := e.Func.(type) {
	case *ast.IdentExpr:
		return f.Value
	case *ast.AttrGetExpr:
		library, _ := f.Object.(*ast.IdentExpr)
		member, _ := f.Key.(*ast.StringExpr)
		if library != nil && member != nil {
			return library.Value + "." + member.Value
		}
	}
	return "?"
}

// command is a call of Redis.
func (w *walk) command(e *ast.FuncCallExpr, in *scope) *value {
	answer := &value{kind: text}
	name, ok := e.Args[0].(*ast.StringExpr)
	if !ok {
		w.fault("line %d: the command has no fixed name", e.Line())
		return answer
	}
	c, known := commands[name.Value]
	if !known {
		w.fault("line %d: the command %s is new: say in commands what it does", e.Line(), name.Value)
		return answer
	}
	var keys []*value
	for i, arg := range e.Args[1:] {
		v := w.value(arg, in)
		if call, ok := arg.(*ast.FuncCallExpr); ok && calledName(call) == "unpack" && v.of != nil {
			v = v.of
		}
		switch {
		case i >= c.keys && v.kind == big:
			w.fault("line %d: %s is given to %s other than by string.format", e.Line(), v.name, name.Value)
		case i < c.keys && v.kind != key:
			w.fault("line %d: a key of %s is neither of KEYS nor a prefix of ARGV and an id", e.Line(), name.Value)
		case i < c.keys:
			keys = append(keys, v)
		}
	}
	for _, k := range keys {
		w.touch(e.Line(), name.Value, c, k)
	}
	if c.writes {
		if !w.now.hasWritten && !c.frees {
			w.fault("the first write is %s", name.Value)
		}
		w.now.mayWrite, w.now.hasWritten = true, true
	}
	return answer
}

// touch is one command's use of one key.
func (w *walk) touch(line int, name string, c command, k *value) {
	switch {
	case c.writes && !k.listed && !w.now.seen[k.name]:
		w.fault("line %d: %s writes a key that is not in KEYS before a look at it", line, name)
	case !c.writes && k.listed && w.now.mayWrite && !w.now.seen[k.name]: // one look at it will do, wherever
		w.fault("looks at %s after its first write", k.name)
	}
	if !c.writes {
		w.now.seen[k.name] = true
	}
}
