package lua_test

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/yuin/gopher-lua/ast"
)

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
		list := &value{kind: table, name: fmt.Sprint(keysOfSession, w.lists)}
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
		one := *list.of
		one.part = !one.listed
		return &one
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
	if !c.writes && !k.part {
		w.now.seen[k.name] = true
	}
}
