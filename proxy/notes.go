package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
	"github.com/tapwire/shadowcat-cluster/mcp"
)

// What a client asks of its server for as long as the session lasts (a log level, subscriptions), a new upstream session would have to be told
// again. So it is noted once the server has granted it, before the client sees that.

// wish is a request for what lasts, which the upstream has not answered yet.
type wish struct {
	id   mcp.ID
	note cluster.Note
}

// wishes are those of a client's message, or of a batch of them.
func (x *exchange) wishes() (all []wish) {
	if !x.msg.Lasts || x.p.cfg.NoRecover {
		return nil
	}
	for _, text := range messagesIn(x.body) {
		msg, err := mcp.Peek(text)
		if err != nil || msg.Kind != mcp.KindRequest {
			continue
		}
		if n, ok := noteOf(msg.Method, text); ok {
			n.ID = x.session
			all = append(all, wish{id: msg.ID, note: n})
		}
	}
	return all
}

// messagesIn returns the messages of a batch, or the one that text is.
func messagesIn(text []byte) []json.RawMessage {
	var batch []json.RawMessage
	if json.Unmarshal(text, &batch) != nil {
		return []json.RawMessage{text}
	}
	return batch
}

// noteOf returns what is to be noted, or forgotten, of a request that was granted.
func noteOf(method string, text []byte) (cluster.Note, bool) {
	n := cluster.Note{Message: text}
	switch method {
	case mcp.MethodSetLevel:
		n.Key = "level"
	case mcp.MethodSubscribe, mcp.MethodUnsubscribe:
		var request struct {
			Params struct {
				URI string `json:"uri"`
			} `json:"params"`
		}
		if json.Unmarshal(text, &request) != nil {
			return n, false // the upstream will not have taken it either
		}
		sum := sha256.Sum256([]byte(request.Params.URI))
		n.Key = "uri:" + base64.RawURLEncoding.EncodeToString(sum[:16])
		if method == mcp.MethodUnsubscribe {
			n.Message = nil
		}
	default:
		return n, false
	}
	return n, len(n.Message) <= cluster.MaxNoteMessage
}

// granted notes of the call's wishes what an upstream's message, or batch of them, says to be granted. What it refuses was never asked for.
func (c *upstreamCall) granted(ctx context.Context, text []byte) {
	if len(c.wishes) == 0 {
		return
	}
	for _, one := range messagesIn(text) {
		msg, err := mcp.Peek(one)
		if err != nil || msg.Kind != mcp.KindResponse {
			continue
		}
		i := slices.IndexFunc(c.wishes, func(w wish) bool { return w.id == msg.ID })
		if i < 0 {
			continue
		}
		if !msg.Failed {
			c.note(ctx, c.wishes[i].note)
		}
		c.wishes = slices.Delete(c.wishes, i, i+1)
	}
}

func (c *upstreamCall) note(ctx context.Context, n cluster.Note) {
	sent := time.Now()
	if err := c.p.sessions.Note(context.WithoutCancel(ctx), n); err != nil {
		c.log().Log(ctx, c.p.cfg.InOutage.Level(err, sent), "a recovery of this session would forget what its client has asked for", "error", err)
	}
}

// noteGranted reads an answer that is one piece of JSON as far as it must, to note what it grants, and puts what was read back in front of
// the rest.
func (x *exchange) noteGranted(ctx context.Context, res *http.Response) {
	if x.call == nil || len(x.call.wishes) == 0 || !mcp.IsMediaType(res.Header.Get("Content-Type"), mcp.MediaTypeJSON) {
		return
	}
	var taken bytes.Buffer
	if _, err := io.CopyN(&taken, res.Body, x.p.cfg.MaxBody); errors.Is(err, io.EOF) {
		x.call.granted(ctx, taken.Bytes())
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&taken, res.Body), res.Body}
}
