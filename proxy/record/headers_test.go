package record_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwire/shadowcat-cluster/proxy/record"
)

func TestTheValuesOfSecretHeadersAreSecrets(t *testing.T) {
	t.Parallel()
	header := make(http.Header)
	for name, value := range map[string]string{
		"Authorization": "Bearer authorization", "Proxy-Authorization": "Basic proxy", "Cookie": `sid=first; other="second"`,
		"X-Auth-Token": "auth-token", "Private-Token": "private-token", "Api-Key": "api-key", "X-Goog-Api-Key": "goog", "X-API-Key": "x-api-key",
		"X-Client-Secret": "client-secret", "X-Pin": "pin", "X-Request-Id": "request-id", "Accept": "application/json", "User-Agent": "agent",
	} {
		header.Set(name, value)
	}
	always := []string{"authorization", "proxy", "first", "second"}
	for name, c := range map[string]struct{ names, want []string }{
		"by default": {record.DefaultRedactHeaders(), append(always, "auth-token", "private-token", "api-key", "goog", "x-api-key", "client-secret")},
		"none":       {nil, always},
		"others":     {[]string{"x_PIN", "user*"}, append(always, "pin", "agent")},
	} {
		headers, err := record.ParseHeaders(c.names)
		if err != nil {
			t.Fatal(err)
		}
		got := headers.AppendSecrets(nil, header)
		slices.Sort(got)
		want := slices.Sorted(slices.Values(c.want))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestNamesThatNoHeaderHasAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "*", "**", "X Token", "X:Y", "a,b", "a*b", "-", strings.Repeat("a", 257)} {
		if _, err := record.ParseHeaders([]string{name}); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	if _, err := record.ParseHeaders(make([]string, 65)); err == nil {
		t.Error("65 names are accepted")
	}
}
