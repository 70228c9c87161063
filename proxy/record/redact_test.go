package record_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/proxy/record"
)

func rules(tb testing.TB, paths ...string) record.Rules {
	tb.Helper()
	r, err := record.ParseRules(paths)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestWhatRulesSelectIsRedacted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, paths, in, want string
	}{
		{"a path", "params.arguments.password", `{"params":{"arguments":{"password":"x","user":"y"}}}`, `{"params":{"arguments":{"password":"[redacted]","user":"y"}}}`},
		{"the same key elsewhere stays", "params.password", `{"password":1,"params":{"x":{"password":2}}}`, `{"password":1,"params":{"x":{"password":2}}}`},
		{"any key", "params.*.pin", `{"params":{"a":{"pin":1},"b":{"pin":2},"pin":3}}`, `{"params":{"a":{"pin":"[redacted]"},"b":{"pin":"[redacted]"},"pin":3}}`},
		{"any number of keys", "**.token", `{"token":1,"a":{"token":{"b":2}},"c":[{"d":{"token":[3]}}]}`, `{"token":"[redacted]","a":{"token":"[redacted]"},"c":[{"d":{"token":"[redacted]"}}]}`},
		{"keys in between", "params.**.key", `{"key":0,"params":{"key":1,"a":{"b":{"key":2}}}}`, `{"key":0,"params":{"key":"[redacted]","a":{"b":{"key":"[redacted]"}}}}`},
		{"all below", "params.**", `{"id":1,"params":{"a":1}}`, `{"id":1,"params":"[redacted]"}`},
		{"everything", "**", ` {"id":1} `, ` "[redacted]" `},
		{"elements need no key", "params.users.pin", `{"params":{"users":[{"pin":1},[{"pin":2}]]}}`, `{"params":{"users":[{"pin":"[redacted]"},[{"pin":"[redacted]"}]]}}`},
		{"elements may have one", "params.users.*.pin", `{"params":{"users":[{"pin":1}]}}`, `{"params":{"users":[{"pin":"[redacted]"}]}}`},
		{"elements themselves", "params.codes.*", `{"params":{"codes":[1,"b"]}}`, `{"params":{"codes":["[redacted]","[redacted]"]}}`},
		{"a batch", "params.pin", `[{"params":{"pin":1}},{"params":{"pin":2}}]`, `[{"params":{"pin":"[redacted]"}},{"params":{"pin":"[redacted]"}}]`},
		{"case", "**.apiKey", `{"APIKEY":1,"apikey":2,"apiKey":3}`, `{"APIKEY":"[redacted]","apikey":"[redacted]","apiKey":"[redacted]"}`},
		{"hyphens and underscores", "**.api_key", `{"api-key":1,"apiKey":2,"_Api_Key":3}`, `{"api-key":"[redacted]","apiKey":"[redacted]","_Api_Key":"[redacted]"}`},
		{"letters that only some decoders take for the same", "**.token,**.secret", `{"to` + "\u212a" + `en":1,"` + "\u017f" + `ecret":2}`, `{"to` + "\u212a" + `en":"[redacted]","` + "\u017f" + `ecret":"[redacted]"}`},
		{"the end of a key", "**.*pass_word", `{"dbPassword":1,"password":2,"passwords":3,"word":4}`, `{"dbPassword":"[redacted]","password":"[redacted]","passwords":3,"word":4}`},
		{"the beginning of a key", "**.private-*", `{"privateKey":1,"private":2,"my_private":3}`, `{"privateKey":"[redacted]","private":"[redacted]","my_private":3}`},
		{"a part of a key", "params.*key*", `{"params":{"x-keys":1,"KEY":2,"k":{"key":3}},"key":4}`, `{"params":{"x-keys":"[redacted]","KEY":"[redacted]","k":{"key":3}},"key":4}`},
		{"a part of a key is for no element", "params.*y", `{"params":[[1,{"y":2}]]}`, `{"params":[[1,{"y":"[redacted]"}]]}`},
		{"an escaped key", "**.token", `{"\u0074o\u006ben":"x"}`, `{"\u0074o\u006ben":"[redacted]"}`},
		{"a key twice", "**.token", `{"token":1,"token":2}`, `{"token":"[redacted]","token":"[redacted]"}`},
		{
			"every kind of value", "**.k", `{"k":null,"a":{"k":true},"b":{"k":-1.5e3},"c":{"k":"\"}]"},"d":{"k":[{"x":"]"}]},"e":{"k":{}}}`,
			`{"k":"[redacted]","a":{"k":"[redacted]"},"b":{"k":"[redacted]"},"c":{"k":"[redacted]"},"d":{"k":"[redacted]"},"e":{"k":"[redacted]"}}`,
		},
		{"white space stays", "**.k", "{ \"k\" :\t1 , \"b\" : [ ] , \"c\":{ } }\n", "{ \"k\" :\t\"[redacted]\" , \"b\" : [ ] , \"c\":{ } }\n"},
		{"several rules", "a.b,**.c", `{"a":{"b":1,"c":2},"b":3}`, `{"a":{"b":"[redacted]","c":"[redacted]"},"b":3}`},
		{"nothing", "x.y", `{"a":[1,2,{"b":"c\\"}],"d":"\\\""}`, `{"a":[1,2,{"b":"c\\"}],"d":"\\\""}`},
	} {
		got, ok := rules(t, strings.Split(c.paths, ",")...).Redact([]byte(c.in))
		if !ok || string(got) != c.want {
			t.Errorf("%s (%s): %s, %v\nwant %s", c.name, c.paths, got, ok, c.want)
		}
	}
}

// Tools often answer with JSON in a text. What rules select there is no less secret.
func TestJSONInTextsIsRedactedAsIfItStoodThere(t *testing.T) {
	t.Parallel()
	quoted := func(v string) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	within := func(text string, times int) string { // a text in a text ...
		for range times {
			text = `[` + quoted(text) + `]`
		}
		return text
	}
	const secret, done = `{"user":"u","password":"x"}`, `{"user":"u","password":"[redacted]"}`
	for _, c := range []struct{ name, paths, in, want string }{
		{
			"the text of a tool's answer", "**.password", `{"result":{"content":[{"type":"text","text":` + quoted(secret) + `}]}}`,
			`{"result":{"content":[{"type":"text","text":` + quoted(done) + `}]}}`,
		},
		{"an array, with white space", "**.password", quoted(" [" + secret + "]\n"), quoted(" [" + done + "]\n")},
		{"a path goes on in it", "result.text.password", `{"result":{"text":` + quoted(secret) + `}}`, `{"result":{"text":` + quoted(done) + `}}`},
		{"a path that ends elsewhere", "result.password", `{"result":{"text":` + quoted(secret) + `}}`, `{"result":{"text":` + quoted(secret) + `}}`},
		{"nothing secret stays as it is written", "**.password", `{"a":"{\u0022b\u0022:1}"}`, `{"a":"{\u0022b\u0022:1}"}`},
		{"no JSON", "**.password", `["{password: x}", "[1, 2", "{} {\"password\":1}"]`, `["{password: x}", "[1, 2", "{} {\"password\":1}"]`},
		{"a text in a text", "**.password", within(secret, 1), within(done, 1)},
		{"as deep as is looked", "**.password", within(secret, 4), within(done, 4)},
		{"deeper", "**.password", within(secret, 5), within(`["[redacted]"]`, 4)},
		{"a key is none", "**.password", `{` + quoted(secret) + `:1}`, `{` + quoted(secret) + `:1}`},
	} {
		got, ok := rules(t, c.paths).Redact([]byte(c.in))
		if !ok || string(got) != c.want {
			t.Errorf("%s (%s): %s, %v\nwant %s", c.name, c.paths, got, ok, c.want)
		}
	}
	escaped := `{"a":` + quoted(`{"b":"upstream\/secret"}`) + `}`
	if got, ok := (record.Rules{}).Redact([]byte(escaped), "upstream/secret"); !ok || string(got) != `{"a":"{\"b\":\"[redacted]\"}"}` {
		t.Errorf("a secret that is written otherwise in a text: %s", got)
	}
}

// One message may be deep, and have a hundred thousand texts: what is kept for the depth is not made for each of them.
func TestTextsInADeepMessageCostNoMoreThanTheyAreLong(t *testing.T) { //nolint:paralleltest // what others take would count
	const depth, texts = 5000, 1000
	r := rules(t, record.DefaultRedact()...)
	message := []byte("[" + strings.Repeat("[", depth) + strings.Repeat("]", depth) + strings.Repeat(`,"[]","{\"token\":1}"`, texts) + "]")
	want := strings.ReplaceAll(string(message), `:1}`, `:\"[redacted]\"}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, ok := r.Redact(message)
	runtime.ReadMemStats(&after)
	if !ok || string(got) != want {
		t.Errorf("it became %d bytes, %t, want %d", len(got), ok, len(want))
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
		t.Errorf("a message of %d bytes took %d MiB of memory", len(message), took>>20)
	}
}

// What people call their secrets, and what is called nearly so and none.
func TestTheDefaultRulesGoByTheUsualNames(t *testing.T) {
	t.Parallel()
	r := rules(t, record.DefaultRedact()...)
	for key, isSecret := range map[string]bool{
		"password": true, "passWord": true, "db_password": true, "user-password": true, "passwd": true, "pwd": true, "db_pwd": true, "passphrase": true,
		"secret": true, "client_secret": true, "clientSecret": true, "aws_secret_access_key": true, "secretKey": true, "accessKey": true,
		"private-key": true, "private-key-pem": true, "api_key": true, "apiKey": true, "x-api-key": true, "X-Goog-Api-Key": true,
		"token": true, "access_token": true, "accessToken": true, "refresh_token": true, "id_token": true, "api_token": true, "x-auth-token": true,
		"sessionToken": true, "bearer": true, "bearer_token": true, "jwt": true, "authorization": true, "Proxy-Authorization": true,
		"credentials": true, "aws_credentials": true, "cookie": true, "set-cookie": true, "cookies": true,
		"progressToken": false, "nextPageToken": false, "maxTokens": false, "tokens": false, "name": false, "key": false, "uri": false, "author": false,
		"secretary": false, "cwd": false, "cursor": false, "compass": false, "id": false, "params": false, "result": false,
	} {
		in := `{"a":[{"` + key + `":"value"}]}`
		if got, ok := r.Redact([]byte(in)); !ok || (string(got) != in) != isSecret {
			t.Errorf("%s: %s; want it redacted: %v", key, got, isSecret)
		}
	}
}

func TestSecretsAreRedactedWhereverTheyAre(t *testing.T) {
	t.Parallel()
	const secret = "upstream/secret"
	for in, want := range map[string]string{
		`{"a":"` + secret + `"}`:                         `{"a":"[redacted]"}`,
		`{"a":["Bearer ` + secret + `, they say"]}`:      `{"a":["[redacted]"]}`,
		`{"a":"upstream\/\u0073ecret"}`:                  `{"a":"[redacted]"}`,
		`{"` + secret + `":1,"b":2}`:                     `{"[redacted]":1,"b":2}`,
		`"` + secret + `"`:                               `"[redacted]"`,
		`{"a":"upstream","b":"/secret","short":"short"}`: `{"a":"upstream","b":"/secret","short":"short"}`,
	} {
		got, ok := record.Rules{}.Redact([]byte(in), secret, "short", "")
		if !ok || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", in, got, ok, want)
		}
	}
}

func TestWhatIsNoJSONIsNotRecorded(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", " ", "{", `{"a":1`, `{"token":"x"}}`, `{"token":"x",}`, "plain", "\"\xff\"", `"a` + "\n" + `"`, `01`, "\ufeff{}"} {
		for _, r := range []record.Rules{{}, rules(t, "**.token")} {
			if got, ok := r.Redact([]byte(in)); ok || got != nil {
				t.Errorf("%q: %q, %v", in, got, ok)
			}
		}
	}
}

func TestPathsThatMeanNothingAreRefused(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", ".", "a.", ".a", "a..b", "***", "****", "a.b*c", "*b*c", "**a", "_", "a.-", "*_", "-*", strings.Repeat("a", 257), strings.Repeat("a.", 32) + "a"} {
		if _, err := record.ParseRules([]string{path}); err == nil {
			t.Errorf("%q is accepted", path)
		}
	}
	if _, err := record.ParseRules(make([]string, 65)); err == nil {
		t.Error("65 paths are accepted")
	}
	if _, err := record.ParseRules(record.DefaultRedact()); err != nil {
		t.Errorf("the default ones: %v", err)
	}
	r := rules(t, strings.Repeat("**.", 31)+"x") // as many states as there may be
	if got, ok := r.Redact([]byte(`{"a":{"b":{"x":1}}}`)); !ok || string(got) != `{"a":{"b":{"x":"[redacted]"}}}` {
		t.Errorf("%s, %v", got, ok)
	}
}

// FuzzRedact compares with a simpler implementation, which goes by what the standard library decodes.
func FuzzRedact(f *testing.F) {
	for _, seed := range []string{
		`{"params":{"arguments":{"password":"hunter22-secret"}}}`, `[{"token":{"a":[1]}},{"b":"hunter22-secret"}]`, `{"a":[[],{}, "\\\"",{"to\u006ben":null}]}`,
		`{"content":[{"text":"{\"token\":1,\"b\":[\"[{\\\"token\\\":2}]\"]}"}]}`, `{"params":{"a":" {\"password\":\"hunter22\"}"}}`,
		` "hunter22-secret" `, `{"":{"token":1e5,"x":-0.1}}`, `17`, `{"TOKEN":1,"token":{"token":2}}`,
	} {
		f.Add([]byte(seed))
	}
	const secret = "hunter22"
	r := rules(f, "**.token", "params.*.password")
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		out, ok := r.Redact(in, secret)
		if !bytes.Equal(in, before) {
			t.Fatal("what came in was changed")
		}
		if !ok {
			if out != nil {
				t.Fatalf("%q was refused, and something is left: %q", in, out)
			}
			return
		}
		var was, is any
		if !json.Valid(out) {
			t.Fatalf("%q became %q", in, out)
		}
		if bytes.Contains(out, []byte(secret)) {
			t.Fatalf("%q became %q", in, out)
		}
		if err := json.Unmarshal(in, &was); err != nil {
			t.Skip(err) // numbers that do not fit
		}
		if err := json.Unmarshal(out, &is); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		if strings.Contains(string(in), "[redacted]") || hasTwins(in) {
			return
		}
		was, fits := opened(was, 0, secret)
		is, _ = opened(is, 0, secret)
		if !fits {
			t.Skip("the same in a text")
		}
		if want := expected(was, nil, secret); !reflect.DeepEqual(is, want) {
			t.Fatalf("%s became %s, want %v", in, out, want)
		}
	})
}

// document is what a text says that is itself a JSON object or array; nil where it is too deep.
type document struct{ value any }

// opened puts documents in the place of such texts, but for those that hold a secret. It reports false where not all of them can be decoded and written again as they are.
func opened(v any, depth int, secret string) (any, bool) {
	fits := true
	switch v := v.(type) {
	case string:
		if strings.Contains(v, secret) || !json.Valid([]byte(v)) || !strings.ContainsAny(strings.TrimLeft(v, " \t\r\n")[:1], "[{") {
			return v, true
		}
		if depth == 4 {
			return document{}, true
		}
		var inner any
		if hasTwins([]byte(v)) || json.Unmarshal([]byte(v), &inner) != nil {
			return v, false
		}
		inner, fits = opened(inner, depth+1, secret)
		return document{inner}, fits
	case map[string]any:
		for key, member := range v {
			inner, ok := opened(member, depth, secret)
			v[key], fits = inner, fits && ok
		}
	case []any:
		for i := range v {
			inner, ok := opened(v[i], depth, secret)
			v[i], fits = inner, fits && ok
		}
	}
	return v, fits
}

// hasTwins reports whether keys may be there twice once some of them are redacted.
func hasTwins(in []byte) bool {
	d := json.NewDecoder(bytes.NewReader(in))
	tokens := 0
	for {
		if _, err := d.Token(); err != nil {
			break
		}
		tokens++
	}
	var v any
	_ = json.Unmarshal(in, &v)
	return tokens != count(v)
}

// count counts the tokens of a value.
func count(v any) int {
	n := 1
	switch v := v.(type) {
	case map[string]any:
		n++
		for _, member := range v {
			n += 1 + count(member)
		}
	case []any:
		n++
		for _, element := range v {
			n += count(element)
		}
	}
	return n
}

// expected is what should be left of a value that the keys of path lead to. An element of an array is reached by none, or by "".
func expected(v any, path []string, secret string) any {
	if n := len(path); n > 0 && isTwin(path[n-1], "token") || selectsPassword(path) {
		return "[redacted]"
	}
	switch v := v.(type) {
	case document:
		if v.value == nil {
			return "[redacted]"
		}
		return document{expected(v.value, path, secret)}
	case string:
		if strings.Contains(v, secret) {
			return "[redacted]"
		}
	case map[string]any:
		left := make(map[string]any)
		for key, member := range v {
			kept := key
			if strings.Contains(key, secret) {
				kept = "[redacted]"
			}
			left[kept] = expected(member, append(slices.Clip(path), key), secret)
		}
		return left
	case []any:
		left := make([]any, 0, len(v))
		for _, element := range v {
			left = append(left, expected(element, append(slices.Clip(path), "\x00"), secret))
		}
		return left
	}
	return v
}

// isTwin reports whether two keys are the same but for case, hyphens and underscores.
func isTwin(a, b string) bool {
	return strings.EqualFold(strings.NewReplacer("-", "", "_", "").Replace(a), b)
}

// selectsPassword reports whether params.*.password leads to a path, in which "\x00" are elements of arrays.
func selectsPassword(path []string) bool {
	var match func(path, rule []string) bool
	match = func(path, rule []string) bool {
		switch {
		case len(path) == 0:
			return len(rule) == 0
		case path[0] == "\x00" && match(path[1:], rule):
			return true
		case len(rule) == 0:
			return false
		case rule[0] == "*":
			return match(path[1:], rule[1:])
		default:
			return path[0] != "\x00" && isTwin(path[0], rule[0]) && match(path[1:], rule[1:])
		}
	}
	return match(path, []string{"params", "*", "password"})
}
