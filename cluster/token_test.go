package cluster_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestTokenSurvivesTheRoundTrip(t *testing.T) {
	t.Parallel()
	token, err := cluster.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	text := token.Reveal()
	if len(text) != cluster.TokenLen {
		t.Errorf("a token of %d characters, want %d", len(text), cluster.TokenLen)
	}
	for _, c := range text {
		if c < 0x21 || c > 0x7e {
			t.Errorf("character %q is not visible ASCII", c)
		}
	}
	parsed, err := cluster.ParseToken(text)
	if err != nil || parsed != token {
		t.Errorf("ParseToken: %v, %v", parsed, err)
	}
}

func TestMalformedTokensAreNotFound(t *testing.T) {
	t.Parallel()
	token, err := cluster.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	good := token.Reveal()
	for name, text := range map[string]string{
		"empty":           "",
		"id alone":        good[:36],
		"short":           good[:62],
		"long":            good + "A",
		"64 KiB":          strings.Repeat("A", 64<<10),
		"upper-case id":   strings.ToUpper(good),
		"no dot":          good[:36] + "A" + good[37:],
		"braces":          "{" + good[1:35] + "}" + good[36:],
		"glob":            "*" + good[1:],
		"newline":         good[:62] + "\n",
		"lower secret":    good[:37] + strings.ToLower(good[37:]),
		"non-ASCII":       good[:61] + "é",
		"urn form":        "urn:uuid:" + good[:36] + good[36:54],
		"nul":             good[:40] + "\x00" + good[41:],
		"unhyphenated id": strings.ReplaceAll(good[:36], "-", "") + "...." + good[36:],
	} {
		if strings.ToLower(good[37:]) == good[37:] && name == "lower secret" {
			continue // a secret of digits only
		}
		_, err := cluster.ParseToken(text)
		if !errors.Is(err, cluster.ErrInvalidToken) || !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("%s: %v, want ErrInvalidToken, which is ErrNotFound", name, err)
		}
		if len(text) > 3 && strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("%s: the error quotes the token", name)
		}
	}
}

func TestSecretStaysOutOfEveryFormat(t *testing.T) {
	t.Parallel()
	token, err := cluster.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	secret := token.Reveal()[37:]
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(format, token); strings.Contains(text, secret) {
			t.Errorf("%s prints the secret: %s", format, text)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	token, err := cluster.NewToken()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{token.Reveal(), "", "0198c0de-0000-7000-8000-000000000000.AAAAAAAAAAAAAAAAAAAAAAAAAA", "{}", "*\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := cluster.ParseToken(text)
		if err == nil && token.Reveal() != text {
			t.Errorf("%q was read as %q", text, token.Reveal())
		}
	})
}
