package lua_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/gopher-lua/ast"
	"github.com/yuin/gopher-lua/parse"
)

var (
	includeLine = regexp.MustCompile(`(?m)^--include (\w+)$`)
	toldName    = regexp.MustCompile(`((?:KEYS|ARGV)\[\d+\])\s+(\w+)`)
	toldRange   = regexp.MustCompile(`ARGV\[1\.\.(\d+)\]`)
	toldList    = regexp.MustCompile(`(?m)^-- then |, then |^-- ARGV {4}the `)
	toldErrors  = regexp.MustCompile(`(?i)\berror ([^.]*)\.`)
	used        = regexp.MustCompile(`(?:KEYS|ARGV)\[\d+\]`)
	usedList    = regexp.MustCompile(`(?:KEYS|ARGV)\[[^\]]*[a-z#][^\]]*\]|#(?:KEYS|ARGV)|\((?:KEYS|ARGV)\b[,)]`)
	errorCode   = regexp.MustCompile(`redis\.error_reply\('([A-Z]+)`)
	replyCode   = regexp.MustCompile(`\{ '([A-Z]+)'`)
	anyCode     = regexp.MustCompile(`\b[A-Z]{3,}\b`)
)

// expand puts includes in their places.
func expand(text string, texts map[string]string) string {
	return includeLine.ReplaceAllStringFunc(text, func(line string) string {
		return texts[includeLine.FindStringSubmatch(line)[1]+".inc.lua"]
	})
}

// checkHeader holds a script's header against its body and returns what does not fit.
func checkHeader(text string, texts map[string]string) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	header, body := split(text)
	for _, part := range []string{"KEYS[1]", "ARGV", "Returns", "Cost: O("} {
		if !strings.Contains(header, part) {
			fault("the header does not tell %s", part)
		}
	}

	told := make(map[string]string)
	for _, m := range toldName.FindAllStringSubmatch(header, -1) {
		told[m[1]] = m[2]
	}
	shared := 0 // how many ARGV are explained by range
	if m := toldRange.FindStringSubmatch(header); m != nil {
		_, _ = fmt.Sscan(m[1], &shared)
	}
	for _, kind := range []string{"KEYS", "ARGV"} {
		n := strings.Count(strings.Join(slices.Collect(maps.Keys(told)), " "), kind)
		first := 1
		if kind == "ARGV" {
			first = shared + 1
		}
		for i := first; i < first+n; i++ {
			if told[fmt.Sprintf("%s[%d]", kind, i)] == "" {
				fault("the header leaves out %s[%d]", kind, i)
			}
		}
	}
	bound := bindings(expand(body, texts))
	for place, name := range told {
		if bound[place] != name {
			fault("the header calls %s %s, the body calls it %q", place, name, bound[place])
		}
	}
	for _, place := range used.FindAllString(body, -1) {
		if told[place] == "" {
			fault("the body uses %s, which the header does not explain", place)
		}
	}
	lists := shared == 0 || strings.Contains(header, "see finish.inc.lua")
	takes, _, _ := strings.Cut(header, "-- Returns")
	if got, want := toldList.MatchString(takes), usedList.MatchString(body); lists && got != want {
		fault("the header tells of a list: %v, the body uses one: %v", got, want)
	}
	return append(faults, checkCodes(header, expand(body, texts))...)
}

// checkCodes holds the codes that a header tells against those that its script answers.
func checkCodes(header, body string) (faults []string) {
	_, returns, _ := strings.Cut(header, "-- Returns")
	returns = strings.ReplaceAll(returns, "\n-- ", " ")
	told := make(map[string]bool)
	if m := toldErrors.FindStringSubmatch(returns); m != nil {
		for _, code := range anyCode.FindAllString(m[1], -1) {
			told[code] = true
		}
	}
	given := make(map[string]bool)
	for _, m := range errorCode.FindAllStringSubmatch(body, -1) {
		given[m[1]] = true
		if !told[m[1]] {
			faults = append(faults, fmt.Sprintf("the header does not tell the error %s", m[1]))
		}
	}
	for code := range told {
		if !given[code] {
			faults = append(faults, fmt.Sprintf("the header tells the error %s, which the script does not give", code))
		}
	}
	for _, m := range replyCode.FindAllStringSubmatch(body, -1) {
		if !strings.Contains(returns, m[1]) {
			faults = append(faults, fmt.Sprintf("the header does not tell the reply %s", m[1]))
		}
	}
	return faults
}

// bindings are the names that a script gives to KEYS and ARGV.
func bindings(script string) map[string]string {
	chunk, err := parse.Parse(strings.NewReader(script), "script")
	if err != nil {
		return nil
	}
	names := make(map[string]string)
	for _, stmt := range chunk {
		s, ok := stmt.(*ast.LocalAssignStmt)
		if !ok {
			continue
		}
		for i, name := range s.Names {
			if i < len(s.Exprs) {
				if place := placeOf(s.Exprs[i]); place != "" {
					names[place] = name
				}
			}
		}
	}
	return names
}

// placeOf is the argument that an expression is, as a number or as it came.
func placeOf(e ast.Expr) string {
	if call, ok := e.(*ast.FuncCallExpr); ok && calledName(call) == "tonumber" {
		e = call.Args[0]
	}
	get, ok := e.(*ast.AttrGetExpr)
	if !ok {
		return ""
	}
	of, isName := get.Object.(*ast.IdentExpr)
	index, isNumber := get.Key.(*ast.NumberExpr)
	if !isName || !isNumber {
		return ""
	}
	return fmt.Sprintf("%s[%s]", of.Value, index.Value)
}

func TestHeadersTellWhatBodiesDo(t *testing.T) {
	t.Parallel()
	texts := scripts(t)
	for file, text := range texts {
		if strings.HasSuffix(file, ".inc.lua") {
			continue
		}
		for _, fault := range checkHeader(text, texts) {
			t.Errorf("%s: %s", file, fault)
		}
	}
}

// An include is read on its own, so it explains the arguments that it takes itself, and says where it belongs.
func TestIncludesTellWhatTheyTake(t *testing.T) {
	t.Parallel()
	texts := scripts(t)
	for file, text := range texts {
		name, isInclude := strings.CutSuffix(file, ".inc.lua")
		if !isInclude {
			continue
		}
		header, body := split(text)
		if !strings.HasPrefix(header, "-- Included by scripts that ") {
			t.Errorf("%s does not tell what it is included by", file)
		}
		for _, use := range used.FindAllString(body, -1) {
			if !strings.Contains(header, use) {
				t.Errorf("%s: the body uses %s, which the header does not explain", file, use)
			}
		}
		takes := strings.Contains(body, "ARGV")
		for user, its := range texts {
			if strings.Contains(its, "--include "+name+"\n") && takes && !strings.Contains(its, "see "+file) {
				t.Errorf("%s does not refer to %s, which uses its ARGV", user, file)
			}
		}
	}
}

func TestHeadersThatAreWrongAreFound(t *testing.T) {
	t.Parallel()
	const good = `-- Does it.
--
-- KEYS[1] a STRING, KEYS[2] b STRING
-- ARGV[1] x, ARGV[2] n, then n more
--
-- Returns OK; error GONE. Cost: O(1).
local a, b = KEYS[1], KEYS[2]
local x, n = ARGV[1], tonumber(ARGV[2])
for i = 3, n do redis.call('GET', ARGV[i]) end
if x then return redis.error_reply('GONE it is') end
return { 'OK' }
`
	if faults := checkHeader(good, nil); faults != nil {
		t.Fatalf("the good one: %v", faults)
	}
	for change, want := range map[[2]string]string{
		{"Cost: O(1)", "Cheap"}:                                                       "does not tell Cost",
		{"= KEYS[1], KEYS[2]", "= KEYS[2], KEYS[1]"}:                                  "calls KEYS[1] a, the body calls it \"b\"",
		{"local x, n", "local y, n"}:                                                  "calls ARGV[1] x",
		{"-- KEYS[1] a STRING, KEYS[2]", "-- KEYS[2]"}:                                "leaves out KEYS[1]",
		{"KEYS[1] a STRING, KEYS[2] b", "KEYS[1] a"}:                                  "uses KEYS[2], which",
		{", then n more", ""}:                                                         "tells of a list: false",
		{"for i = 3, n do redis.call('GET', ARGV[i])", "for i = 3, n do local _ = i"}: "tells of a list: true",
		{"error GONE", "nothing else"}:                                                "does not tell the error GONE",
		{"error GONE", "error GONE, LOST"}:                                            "tells the error LOST",
		{"Returns OK", "Returns a word"}:                                              "does not tell the reply OK",
	} {
		faults := strings.Join(checkHeader(strings.Replace(good, change[0], change[1], 1), nil), "; ")
		if !strings.Contains(faults, want) {
			t.Errorf("%q instead of %q: found %q, want %q", change[1], change[0], faults, want)
		}
	}
}

func TestEveryScriptIsLoaded(t *testing.T) {
	t.Parallel()
	loader, err := os.ReadFile("lua.go")
	if err != nil {
		t.Fatal(err)
	}
	for file := range scripts(t) {
		name, _ := strings.CutSuffix(file, ".lua")
		if !strings.HasSuffix(file, ".inc.lua") && strings.Count(string(loader), `load("`+name+`")`) != 1 {
			t.Errorf("lua.go does not load %s once", file)
		}
	}
}
