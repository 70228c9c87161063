package redisstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Fuzz input stands for a reply: the parts one after the other, each a byte that says what it is, then its content.
const (
	partNil    = iota
	partInt    // a varint
	partText   // a length byte, then as many bytes
	partSecret // the same, of a text that must not come out
	partList   // a length byte, then the parts of as many bytes
	partKinds
)

// secretMark is in every secret of a reply. No error may tell of it.
const secretMark = "~secret~"

// makeReply makes a reply of fuzz input, with lists in lists to a depth of 3.
func makeReply(data []byte, depth int) []any {
	var reply []any
	for len(data) > 0 {
		kind := data[0] % partKinds
		data = data[1:]
		var content []byte
		if kind >= partText && len(data) > 0 {
			n := min(int(data[0]), len(data)-1)
			content, data = data[1:1+n], data[1+n:]
		}
		switch kind {
		case partInt:
			n, size := binary.Varint(data)
			data = data[max(size, min(len(data), 1)):]
			reply = append(reply, n)
		case partText:
			reply = append(reply, string(content))
		case partSecret:
			reply = append(reply, secretMark+string(content))
		case partList:
			var list []any
			if depth < 3 {
				list = makeReply(content, depth+1)
			}
			reply = append(reply, list)
		default:
			reply = append(reply, nil)
		}
	}
	return reply
}

// replyData is fuzz input that makes a reply.
func replyData(reply ...any) []byte {
	var data []byte
	for _, part := range reply {
		switch part := part.(type) {
		case int64:
			data = binary.AppendVarint(append(data, partInt), part)
		case int:
			data = binary.AppendVarint(append(data, partInt), int64(part))
		case string:
			data = append(append(data, partText, byte(len(part))), part...)
		case []any:
			list := replyData(part...)
			data = append(append(data, partList, byte(len(list))), list...)
		default:
			data = append(data, partNil)
		}
	}
	return data
}

var fuzzID = cluster.ID{0x01, 0x98, 0xc0, 0xde, 6: 0x70, 8: 0x80}

// decoders are all that read replies. Each returns its errors.
var decoders = map[string]struct {
	decode func(t *testing.T, reply []any) []error
	known  []error // what an error may be: outcomes, or a fault
}{
	"answer": {func(t *testing.T, reply []any) []error {
		session, now, err := decodeAnswer(fuzzID, reply)
		checkSession(t, session, err)
		checkTime(t, now)
		return []error{err}
	}, []error{errMalformedReply}},
	"session": {func(t *testing.T, reply []any) []error {
		session, err := decodeSession(fuzzID, reply)
		checkSession(t, session, err)
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"terminated": {func(t *testing.T, reply []any) []error {
		session, _, _, err := decodeTerminated(fuzzID, reply)
		checkSession(t, session, err)
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"ended": {func(t *testing.T, reply []any) []error {
		ended, purged, err := decodeGone(reply)
		if len(ended)*endedFields+len(purged)*purgedFields > len(reply) {
			t.Errorf("%d sessions out of %d parts", len(ended)+len(purged), len(reply))
		}
		return []error{err}
	}, []error{errMalformedReply}},
	"created": {func(t *testing.T, reply []any) []error {
		created, _, err := decodeCreated(cluster.Token{ID: fuzzID}, reply)
		checkSession(t, created.Session, err)
		if limit, ok := errors.AsType[*cluster.LimitError](err); ok && limit.RetryAfter <= 0 {
			t.Errorf("retry after %v", limit.RetryAfter)
		}
		return []error{err}
	}, []error{cluster.ErrCapacity, cluster.ErrStoreUnavailable}},
	"swept": {func(_ *testing.T, reply []any) []error {
		_, err := decodeSwept(pipelined{reply: reply})
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"ending": {func(t *testing.T, reply []any) []error {
		ended, purged, err := decodeEnding(pipelined{reply: reply})
		if len(ended)*endedFields+len(purged)*purgedFields > len(reply) {
			t.Errorf("%d sessions out of %d parts", len(ended)+len(purged), len(reply))
		}
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"ids": {func(t *testing.T, reply []any) []error {
		ids, err := decodeIDs(reply)
		if len(ids) > len(reply) {
			t.Errorf("%d ids out of %d parts", len(ids), len(reply))
		}
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"repairs": {func(t *testing.T, reply []any) []error {
		repairs, err := decodeRepairs(reply)
		for _, r := range repairs {
			if !slices.Contains(cluster.RepairKinds(), r.Kind) {
				t.Errorf("a repair of kind %q", r.Kind)
			}
		}
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"grant": {func(t *testing.T, reply []any) []error {
		grant, err := decodeGrant(fuzzID, reply)
		if !grant.IsKnown {
			checkSession(t, grant.Session, err)
		}
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"renewals": {func(t *testing.T, reply []any) []error {
		n := len(reply) / renewalParts
		renewals := decodeRenewals(pipelined{reply: reply}, n)
		errs := make([]error, len(renewals))
		for i, r := range renewals {
			errs[i] = r.Err
			if errors.Is(r.Err, cluster.ErrNotFound) && reply[renewalParts*i] != int64(0) {
				t.Errorf("a session is gone because of %T", reply[renewalParts*i])
			}
		}
		if len(renewals) != n {
			t.Errorf("%d renewals for %d sessions", len(renewals), n)
		}
		return errs
	}, []error{cluster.ErrNotFound, cluster.ErrStoreUnavailable}},
	"checks": {func(t *testing.T, reply []any) []error {
		errs := decodeChecks(pipelined{reply: reply}, len(reply))
		for i, err := range errs {
			if errors.Is(err, cluster.ErrNotFound) && reply[i] != int64(0) {
				t.Errorf("a session is gone because of %T", reply[i])
			}
		}
		return errs
	}, []error{cluster.ErrNotFound, cluster.ErrStoreUnavailable}},
	"reserved": {func(t *testing.T, reply []any) []error {
		settled, err := decodeReserved(reply)
		if limit, ok := errors.AsType[*cluster.LimitError](err); ok && limit.RetryAfter <= 0 {
			t.Errorf("retry after %v", limit.RetryAfter)
		}
		if len(settled) > len(reply) {
			t.Errorf("%d places out of %d parts", len(settled), len(reply))
		}
		return []error{err}
	}, []error{cluster.ErrPrincipalCapacity, cluster.ErrCreationLimited, cluster.ErrStoreUnavailable}},
	"events": {func(t *testing.T, reply []any) []error {
		page := decodeEvents(pipelined{reply: reply})
		if len(page.Events) > len(reply) {
			t.Errorf("%d events out of %d parts", len(page.Events), len(reply))
		}
		return []error{page.Err}
	}, []error{cluster.ErrStoreUnavailable}},
	"appended": {func(_ *testing.T, reply []any) []error {
		_, err := decodeAppended(reply)
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"claimed": {func(t *testing.T, reply []any) []error {
		state, err := decodeClaimed(reply)
		if err != nil && cmp.Diff(cluster.StreamState{}, state) != "" {
			t.Errorf("a state with an error: %+v", state)
		}
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"states": {func(t *testing.T, reply []any) []error {
		n := len(reply) / stateParts
		states := decodeStates(pipelined{reply: reply}, n)
		errs := make([]error, len(states))
		for i, state := range states {
			errs[i] = state.Err
			if errors.Is(state.Err, cluster.ErrNotFound) && reply[stateParts*i] != int64(0) {
				t.Errorf("a session is gone because of %T", reply[stateParts*i])
			}
		}
		if len(states) != n {
			t.Errorf("%d states of %d sessions", len(states), n)
		}
		return errs
	}, []error{cluster.ErrNotFound, cluster.ErrStoreUnavailable}},
	"recovery": {func(t *testing.T, reply []any) []error {
		r, err := decodeRecovery(fuzzID, reply)
		if r.Busy == 0 {
			checkSession(t, r.Session, err)
		}
		if r.Busy < 0 || len(r.Notes) > len(reply) || r.Busy > 0 && len(r.Notes) > 0 {
			t.Errorf("busy for %v, %d notes out of %d parts", r.Busy, len(r.Notes), len(reply))
		}
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"frames": {func(t *testing.T, reply []any) []error {
		const after = 7
		page, err := decodeFrames(after, reply)
		if page.Missed < 0 {
			t.Errorf("%d frames are missing", page.Missed)
		}
		last := int64(after)
		for _, f := range page.Frames {
			if f.Number <= last {
				t.Errorf("frame %d follows %d", f.Number, last)
			}
			last = f.Number
			checkTime(t, f.At)
		}
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"pending": {func(t *testing.T, reply []any) []error {
		all, err := decodePending(reply)
		for i := 1; i < len(all); i++ {
			if all[i].Age > all[i-1].Age {
				t.Errorf("a request of %v follows one of %v", all[i].Age, all[i-1].Age)
			}
		}
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"number": {func(t *testing.T, reply []any) []error {
		n, err := decodeNumber(reply)
		if err == nil && reply[0] == "NaN" {
			t.Errorf("what is not a number is %d", n)
		}
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
	"counts": {func(t *testing.T, reply []any) []error {
		stats := newStats()
		err := addCounts(&stats, reply)
		for status := range stats.ByStatus {
			if !status.Valid() {
				t.Errorf("counts sessions of status %q", status)
			}
		}
		for status := range stats.Ended {
			if !status.Ended() {
				t.Errorf("counts sessions ended as %q", status)
			}
		}
		return []error{err}
	}, []error{errMalformedReply}},
	"layout": {func(_ *testing.T, reply []any) []error {
		_, err := decodeLayout(reply)
		return []error{err}
	}, []error{cluster.ErrStoreUnavailable}},
}

func checkSession(t *testing.T, s cluster.Session, err error) {
	t.Helper()
	if err != nil {
		if diff := cmp.Diff(cluster.Session{}, s); diff != "" {
			t.Errorf("a session with an error: %s", diff)
		}
		return
	}
	if !s.Status.Valid() {
		t.Errorf("a session of status %q without an error", s.Status)
	}
	for _, at := range []time.Time{s.CreatedAt, s.LastActivityAt, s.DeadlineAt, s.EndedAt} {
		checkTime(t, at)
	}
}

// checkTime checks that a time can be told in JSON.
func checkTime(t *testing.T, at time.Time) {
	t.Helper()
	if _, err := at.MarshalJSON(); err != nil {
		t.Errorf("a time that cannot be told: %v", err)
	}
}

// FuzzReplies gives every decoder replies that no script would give.
func FuzzReplies(f *testing.F) {
	for _, seed := range replySeeds() {
		f.Add(replyData(seed...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		reply := makeReply(data, 0)
		for name, decoder := range decoders {
			for _, err := range decoder.decode(t, reply) {
				if err == nil {
					continue
				}
				if !slices.ContainsFunc(decoder.known, func(known error) bool { return errors.Is(err, known) }) {
					t.Errorf("%s: %v is none of the errors it promises", name, err)
				}
				if text := err.Error(); strings.Contains(text, secretMark) || len(text) > 500 {
					t.Errorf("%s: the error tells of the reply: %.600s", name, text)
				}
			}
		}
	})
}

// replySeeds are replies as the scripts give them, one of each kind.
func replySeeds() [][]any {
	id := fuzzID.String()
	const ms, us = int64(1_767_323_045_000), "1767323045000000"
	record := []any{"a", "digest", "p", "3", "u", "http://e", "x", "2025-11-25", "n", "w", "1767323045000", "1767323045000", us, "5", "o", nil, nil}
	answer := slices.Concat([]any{ms, "1767323047000", 1}, record)
	ended := slices.Concat([]any{id, ms}, record)
	frame := []any{8, "1767323045000", "client", "tools/call", "n1", "12", "200", "1500", "r/1", "{}"}
	return [][]any{
		answer,
		slices.Concat([]any{1}, answer),
		slices.Concat(answer, ended),
		ended,
		slices.Concat([]any{"FULL", 1000}, ended),
		slices.Concat([]any{1, 0}, ended),
		slices.Concat([]any{120, 1, 2, id, id}, ended, ended),
		{id, "index_wrong", id, "ttl_missing"},
		{id, id},
		slices.Concat([]any{4, 2000, us}, answer),
		{1, 3, 10, 2000, us, 0, 0, 0, 0, 0, 0, 0},
		{1, 0, 1},
		{"OK"},
		{"RATE", 100},
		{"FULL", id, id},
		{2, 7, "one", "two"},
		{2, 7},
		{"r/1", 3, 7, 2, "up-2", 1},
		{1, "r/1", 3, 7, 2, 0, 0, 0, 0, 0},
		{1500},
		slices.Concat([]any{0}, answer, []any{"{}", "b", "note b", "a", "note a"}),
		slices.Concat([]any{9}, frame, []any{9}, frame[1:]),
		{math.MaxInt64},
		{"NaN"},
		{"0x1p60"},
		{1, "created", "5", "a", "2", "ended:x", "1", "ended:?", "1", "ended:a", "1"},
		{"1", "16", "10000", "600000"},
		{[]any{[]any{nil, "deep"}}},
	}
}

// FuzzErrorReplies gives domainError what a server may answer instead of a reply.
func FuzzErrorReplies(f *testing.F) {
	for _, seed := range []string{"NOTFOUND x", "GONE", "STALE x", "NOTESFULL x", "ILLEGAL x", "CONFLICT x", "LIMITED 20", "LIMITED 9223372036854775807", "LIMITED -1", "PENDING x", "OOM", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := domainError(serverError(text))
		if limit, ok := errors.AsType[*cluster.LimitError](err); ok && limit.RetryAfter <= 0 {
			t.Errorf("retry after %v", limit.RetryAfter)
		}
		known := []error{
			cluster.ErrNotFound, cluster.ErrEventsGone, cluster.ErrIllegalTransition, cluster.ErrConflict,
			cluster.ErrRateLimited, cluster.ErrPendingLimited, cluster.ErrStoreUnavailable, cluster.ErrStaleClaim, cluster.ErrNotesFull,
		}
		if !slices.ContainsFunc(known, func(e error) bool { return errors.Is(err, e) }) {
			t.Errorf("%q became %v", text, err)
		}
		if other := domainError(errors.New(text)); !errors.Is(other, cluster.ErrStoreUnavailable) {
			t.Errorf("%q became %v, though no server said it", text, other)
		}
	})
}

// serverError is an error that a server answered.
type serverError string

func (e serverError) Error() string { return string(e) }
func (serverError) RedisError()     {}

// fuzzStore is a store on an embedded Redis, which is emptied by the returned function.
func fuzzStore(f *testing.F) (*Store, *miniredis.Miniredis) {
	f.Helper()
	server := miniredis.RunT(f)
	server.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DisableIdentity: true})
	f.Cleanup(func() { _ = client.Close() })
	cfg := cluster.DefaultConfig()
	cfg.CreateRate = 0
	store, err := New(client, Options{Config: cfg})
	if err != nil {
		f.Fatal(err)
	}
	return store, server
}

// FuzzRecord stores records through the scripts and reads them again, as they were made and as they were changed.
func FuzzRecord(f *testing.F) {
	long := strings.Repeat("long ", 20)
	f.Add("u", "http://e", "p", "client", "1.0", []byte("{}"), "http://f", "x", "2025-11-25")
	f.Add("u", long, "", long, long, []byte(nil), "", long, "r")
	f.Add("", "", "", "", "", []byte("\r\n"), long, "", "")
	f.Add("u", "", "", "i", "s", []byte(long), "", "", "")
	store, server := fuzzStore(f)
	f.Fuzz(func(t *testing.T, upstream, endpoint, principal, name, version string, initialize []byte, moved, upstreamSession, revision string) {
		server.FlushAll()
		token, err := cluster.NewToken()
		if err != nil {
			t.Fatal(err)
		}
		created, err := store.create(t.Context(), cluster.Creation{Token: token, NewSession: cluster.NewSession{
			Upstream: upstream, Endpoint: endpoint, Principal: cluster.Principal(principal),
			ClientName: name, ClientVersion: version, Initialize: initialize,
		}})
		if err != nil {
			t.Fatal(err)
		}
		want := cluster.Session{
			ID: token.ID, Status: cluster.StatusInitializing, Principal: cluster.Principal(principal), Version: 1,
			Upstream: upstream, Endpoint: endpoint, ClientName: name, ClientVersion: version,
			CreatedAt: created.Session.CreatedAt, LastActivityAt: created.Session.CreatedAt, DeadlineAt: created.Session.DeadlineAt,
		}
		checkStored(t, store, want, created.Session)
		if kept := server.HGet(store.partitionOf(token.ID).more(token.ID), "i"); kept != string(initialize) {
			t.Errorf("the initialize message %q was stored as %q", initialize, kept)
		}

		changed, err := store.Update(t.Context(), cluster.Change{
			ID: token.ID, ExpectedVersion: 1, Writer: "w", Endpoint: moved,
			Activation: cluster.Activation{UpstreamSession: upstreamSession, Revision: revision},
		})
		if err != nil {
			t.Fatal(err)
		}
		want.Status, want.Version, want.DeadlineAt = cluster.StatusActive, 2, changed.DeadlineAt
		want.UpstreamSession, want.Revision = upstreamSession, revision
		if moved != "" {
			want.Endpoint = moved
		}
		checkStored(t, store, want, changed)
	})
}

// checkStored checks a record that was answered, and the one that is stored.
func checkStored(t *testing.T, store *Store, want, answered cluster.Session) {
	t.Helper()
	if diff := cmp.Diff(want, answered); diff != "" {
		t.Errorf("answered (-want +got):\n%s", diff)
	}
	got, err := store.Get(t.Context(), want.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

// FuzzCut cuts texts short.
func FuzzCut(f *testing.F) {
	f.Add(strings.Repeat("é", 40), 3)
	f.Add("\xff\xfe", 1)
	f.Fuzz(func(t *testing.T, text string, n int) {
		n = max(n%maxMethod, 0)
		got := cutTo(text, n)
		if len(got) > n && got != text || utf8.ValidString(text) && (!utf8.ValidString(got) || !strings.HasPrefix(text, got)) {
			t.Errorf("%q cut to %d bytes is %q", text, n, got)
		}
	})
}

// FuzzFrame records frames through the scripts and reads them again.
func FuzzFrame(f *testing.F) {
	f.Add(int64(230), "client", "tools/call", "n1", 12, 200, int64(1500), "r/1", []byte("{}"))
	f.Add(int64(-1), "", strings.Repeat("é", 70), strings.Repeat("\xff", 70), -1, 0, int64(-1), "", []byte(nil))
	f.Add(int64(math.MaxInt64), "upstream", "", "", math.MaxInt64, math.MinInt64, int64(math.MaxInt64), "\r\n", []byte{0})
	store, server := fuzzStore(f)
	f.Fuzz(func(t *testing.T, age int64, direction, method, message string, size, status int, latency int64, replica string, payload []byte) {
		server.FlushAll()
		token, err := cluster.NewToken()
		if err != nil {
			t.Fatal(err)
		}
		created, err := store.create(t.Context(), cluster.Creation{Token: token})
		if err != nil {
			t.Fatal(err)
		}
		in := cluster.Frame{
			Age: time.Duration(age), Direction: cluster.Direction(direction), Method: method, MessageID: message,
			Size: size, Status: status, Latency: time.Duration(latency), Replica: replica, Payload: payload,
		}
		if err := store.AppendFrames(t.Context(), token.ID, []cluster.Frame{in, in}); err != nil {
			t.Fatal(err)
		}
		page, err := store.ReadFrames(t.Context(), cluster.FrameQuery{ID: token.ID, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		if page.Last != 2 || page.Missed != 0 || len(page.Frames) != 2 {
			t.Fatalf("%d frames of %d, %d missing; want 2", len(page.Frames), page.Last, page.Missed)
		}
		want := in
		want.At, want.Age = created.Session.CreatedAt.Add(-max(in.Age, 0).Truncate(time.Millisecond)), 0
		want.Latency = in.Latency.Truncate(time.Microsecond)
		want.Direction = cluster.Direction(cutTo(direction, maxDirection))
		want.Method, want.MessageID, want.Replica = cutTo(method, maxMethod), cutTo(message, maxMessageID), cutTo(replica, maxReplica)
		want.Payload = bytes.Clone(payload)
		for i, got := range page.Frames {
			want.Number = int64(i + 1)
			if len(got.Payload) == 0 && len(want.Payload) == 0 {
				got.Payload, want.Payload = nil, nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("frame %d (-want +got):\n%s", i+1, diff)
			}
		}
	})
}
