package roundrobin

import (
	"encoding/json"
	"net/http"
	"sync"
)

// maxExchanges bounds the memory of what was served; later requests are forwarded and not remembered.
const maxExchanges = 100_000

// NoBackend stands in for a backend where none took the request.
const NoBackend = -1

// Exchange is one request that the front forwarded, and the status of its answer.
type Exchange struct {
	// HTTPMethod is POST, GET or DELETE.
	HTTPMethod string
	// RPCMethod is the JSON-RPC method of the request or notification in the body, empty for the answer of a client.
	RPCMethod string
	// RPCID is the JSON-RPC id as written, so that 1 and "1" differ; empty for a notification.
	RPCID string
	// SessionID is the request's Mcp-Session-Id, empty without one.
	SessionID string
	// Backend is the index of the backend that the request went to, or NoBackend.
	Backend int
	// Status is the answer's HTTP status, 0 as long as there is none.
	Status int
	// GrantedSessionID is the Mcp-Session-Id of the answer, empty without one.
	GrantedSessionID string
}

// IsAnswer tells whether the request carries a client's answer to a request of the server.
func (e Exchange) IsAnswer() bool {
	return e.HTTPMethod == http.MethodPost && e.RPCMethod == "" && e.RPCID != ""
}

// Trace returns what the front has forwarded so far, in the order in which it arrived.
func (f *Front) Trace() []Exchange { return f.trace.all() }

type trace struct {
	mu        sync.Mutex
	exchanges []Exchange
}

// begin records a request and returns its number, to be passed to forwarded and answered.
func (t *trace) begin(request *http.Request, body []byte) int {
	var message struct {
		Method string          `json:"method"`
		ID     json.RawMessage `json:"id"`
	}
	// What is no single JSON-RPC message (a batch, garbage, nothing) is recorded without method and id.
	_ = json.Unmarshal(body, &message)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.exchanges) == maxExchanges {
		return maxExchanges
	}
	t.exchanges = append(t.exchanges, Exchange{
		HTTPMethod: request.Method,
		RPCMethod:  message.Method,
		RPCID:      string(message.ID),
		SessionID:  request.Header.Get("Mcp-Session-Id"),
		Backend:    NoBackend,
	})
	return len(t.exchanges) - 1
}

func (t *trace) forwarded(number, backend int) {
	t.update(number, func(e *Exchange) { e.Backend = backend })
}

func (t *trace) answered(number int, response *http.Response) {
	if response == nil {
		return
	}
	t.update(number, func(e *Exchange) {
		e.Status = response.StatusCode
		e.GrantedSessionID = response.Header.Get("Mcp-Session-Id")
	})
}

func (t *trace) update(number int, change func(*Exchange)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if number < len(t.exchanges) {
		change(&t.exchanges[number])
	}
}

func (t *trace) all() []Exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Exchange(nil), t.exchanges...)
}
