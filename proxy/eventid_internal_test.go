package proxy

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// sealed is an id of an event that an upstream has an id for.
func sealed(e eventID, upstream string) eventID {
	e.from = origin{event: upstream, version: 1<<53 - 1, session: "upstream-secret"}.sealed(e.position)
	return e
}

func TestEventIDsNameTheirStreamAndPlace(t *testing.T) {
	t.Parallel()
	const owner = "ABCDEF27"
	for _, want := range []eventID{
		{stream: cluster.OwnStream},
		{stream: cluster.OwnStream, claim: 1, position: 1},
		{stream: cluster.OwnStream, claim: 1, position: 2, listener: 38},
		sealed(eventID{stream: cluster.OwnStream, claim: 1, position: 2}, "7"),
		sealed(eventID{stream: cluster.OwnStream, claim: 1, position: 2, listener: 38}, "a b.c\x00"),
		sealed(eventID{stream: cluster.OwnStream, claim: 1<<53 - 1, position: 1<<53 - 1, listener: 1<<53 - 1}, strings.Repeat("x", cluster.MaxUpstreamEvent)),
		sealed(eventID{stream: cluster.OwnStream, claim: 1}, strings.Repeat("x", cluster.MaxUpstreamEvent+1)),
		{stream: cluster.OwnStream, claim: 1, position: 2, listener: 1},
		{stream: cluster.OwnStream, claim: 1<<53 - 1, position: 1<<53 - 1},
		{stream: answerStreamName(owner, 1), owner: owner, position: 1, request: `7`},
		{stream: answerStreamName(owner, 1), owner: owner, position: 1, request: `"7"`},
		{stream: answerStreamName(owner, 36), owner: owner, position: 37, request: `-1`, last: true},
		{stream: answerStreamName(owner, 36), owner: owner, position: 37}, // a batch's
		{stream: answerStreamName(owner, 36), owner: owner, position: 37, request: mcp.ID(`"` + strings.Repeat("x", 300) + `"`)},
	} {
		text := want.String()
		if got, ok := parseEventID(text); !ok || got != want {
			t.Errorf("%s is read as %+v, %v; want %+v", text, got, ok, want)
		}
		if len(want.stream) > 64 || len(text) > maxEventID || strings.ContainsAny(text, "\r\n\x00 ") {
			t.Errorf("the id %q, of stream %s", text, want.stream)
		}
	}
	long := eventID{stream: answerStreamName(owner, 1), owner: owner, position: 1, request: mcp.ID(`"` + strings.Repeat("x", 400) + `"`)}
	if text := long.String(); text != "" {
		t.Errorf("a request's id that is too long makes %q", text)
	}
}

func TestWhatIsNoEventIDIsNone(t *testing.T) {
	t.Parallel()
	seal := strings.Repeat("A", 22)
	for _, text := range []string{
		"", "g", "g.1", "g.1.2.0", "g.1.2.03", "g.1.2.3.0", "g.1.2.3.4.5", "g.1.2.3.4.5.6", "g.1.2.0.1.Nw." + seal[1:], "g.1.2.0.1.." + seal, "g.1.2.0.1.Nx." + seal, "g.1.2.0.1.Nw." + seal + ".1",
		"g..", "g.-1.1", "g.1.+1", "g.1.01", "g.1.G", "g.1.2gosa7pa2gw", "h.1.1", "p.ABCDEF27.1.1", "p.ABCDEF27.1.1.Nw.x",
		"p.abcdef27.1.1.Nw", "p.ABCDEF2.1.1.Nw", "p.ABCDEF28.1.1.Nw", "p.ABCDEF27.1.1.Nw=", "p.ABCDEF27.1.1.N w", "p.ABCDEF27.1.1.!",
		"p.ABCDEF27.1.1.e30",                     // {} is no JSON-RPC id
		"p.ABCDEF27.1.1.NyA",                     // "7 "
		"p.ABCDEF27.1.0.Nw",                      // the first event is number 1
		"a.ABCDEF27.1.0.Nw",                      // as above
		"p.ABCDEF27.01.1.Nw",                     // a number in another form
		"p.ABCDEF27.1.1.Nw\n",                    // more than an id
		"g.1.1.0.1.Nw.AAAAAAAAAAAAAAAAAAAAA",     // a short seal
		"g.1.1.0.1.Nw.AAAAAAAAAAAAAAAAAAAAAB",    // bits that no seal has
		"g.1.1.0.1.Nw.AAAAAAAAAAAAAAAAAAAAA\x00", // not the letters of one
		"g.1.1.0.1.Nw.AAAAAAAAAAAAAAAAAAAAAA\n",  // as above
		strings.Repeat("g", maxEventID+1),
	} {
		if got, ok := parseEventID(text); ok {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}

func FuzzEventID(f *testing.F) {
	for _, seed := range []string{"g.0.0", "g.1.zz", "p.ABCDEF27.1.1.Nw", "a.ABCDEF27.zz.10.Ijci", "p.ABCDEF27.1.1.", "g.1.1.1", "g.1.1.0", "g.1.1.0.1.Nw.AAAAAAAAAAAAAAAAAAAAAA", "g.1.1.0.1", "p....", "p.ABCDEF27.1.0.Nw"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, ok := parseEventID(text)
		if !ok {
			return
		}
		if got := id.String(); got != text {
			t.Errorf("%q is read as %+v, which is written %q", text, id, got)
		}
		isOwn := id.stream == cluster.OwnStream
		if id.position < 0 || id.claim < 0 || isOwn != (id.owner == "") || isOwn && (id.request != "" || id.last) || !isOwn && id.position == 0 {
			t.Errorf("%q is read as %+v", text, id)
		}
		if _, err := mcp.AppendEvent(nil, mcp.Event{ID: text}); err != nil {
			t.Errorf("%q is no id of an event: %v", text, err)
		}
		if id.request != "" {
			if again, ok := mcp.ParseID(string(id.request)); !ok || again != id.request {
				t.Errorf("%q names the request %q, which is none", text, id.request)
			}
		}
	})
}

func FuzzKeptEvent(f *testing.F) {
	f.Add([]byte("m\n{}"))
	f.Add([]byte("mname\n{\"a\":\n1}"))
	f.Add([]byte("b\n"))
	f.Add([]byte("e"))
	f.Add([]byte("x\nx"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		e := decodeKept(text)
		if strings.Contains(e.name, "\n") {
			t.Errorf("%q has the name %q", text, e.name)
		}
		again := decodeKept(e.encode())
		if again.kind != e.kind || again.name != e.name || !bytes.Equal(again.data, e.data) {
			t.Errorf("%q is read as %+v, and then as %+v", text, e, again)
		}
	})
}

// The id that an upstream has for a session is a secret, also when its ids of events have it in them.
func TestAnEventIDTellsNoUpstreamSession(t *testing.T) {
	t.Parallel()
	tells := func(session, event string) bool {
		return origin{event: event, version: 1, session: session}.sealed(1).event != ""
	}
	if tells("upstream-secret", "upstream-secret:7") {
		t.Error("the upstream's session is told")
	}
	if !tells("upstream-secret", "7") || !tells("7", "17") {
		t.Error("an event's id is not told, though it has no secret in it")
	}
}
