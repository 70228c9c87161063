package main

import "testing"

func TestEndpointsAreShownWithoutCredentials(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"":                                  "",
		"127.0.0.1:9000":                    "127.0.0.1:9000",
		"files.internal":                    "files.internal",
		"http://files:8080/mcp?a=b":         "http://files:8080/mcp?a=b",
		"http://user:hunter2@files/mcp":     "http://files/mcp",
		"user:hunter2@127.0.0.1:9000":       "(unreadable)",
		"http://user:hun/ter2@files/mcp%zz": "(unreadable)",
	} {
		if got := withoutUser(address); got != want {
			t.Errorf("withoutUser(%q) = %q, want %q", address, got, want)
		}
	}
}
