package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	// exampleSessionTimeout is when the example server forgets a session that sends nothing. It is well over the
	// cluster's idle timeout (30m), so that the cluster is the one that decides.
	exampleSessionTimeout = 2 * time.Hour

	// askTimeout is how long the ask tool waits for a person.
	askTimeout = 5 * time.Minute

	counterURI = "demo://counter"
)

// example is the demo's MCP server. It is deliberately stateful: a session's counter is in this process's memory, under
// the server's own session, so a cluster that lost or mixed up a session would show at once.
type example struct {
	server   *mcp.Server
	counters *counters

	// stopped ends the tools that are still running: the SDK's Close waits for them and does not cancel them.
	stopped context.Context
	stop    context.CancelFunc
}

func newExample(version string) *example {
	e := &example{
		server: mcp.NewServer(
			&mcp.Implementation{Name: "shadowcat-demo", Title: "Shadowcat Cluster demo", Version: version},
			&mcp.ServerOptions{Instructions: "A demo server. Call counter a few times: each session has its own counter, " +
				"and it goes on counting whichever replica a request passes through."},
		),
	}
	e.counters = newCounters(e.server.Sessions)
	e.stopped, e.stop = context.WithCancel(context.Background())
	e.addCounter()
	e.addSlow()
	e.addAsk()
	e.addTour()
	return e
}

// handler serves the example over Streamable HTTP, with sessions.
func (e *example) handler() http.Handler {
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return e.server },
		&mcp.StreamableHTTPOptions{SessionTimeout: exampleSessionTimeout})
}

// close ends every session and the tools that run in them. No request may arrive any more.
func (e *example) close() error {
	e.stop()
	var errs []error
	for session := range e.server.Sessions() {
		errs = append(errs, session.Close())
	}
	return errors.Join(errs...)
}

// running returns a context that ends with the call or with the example, whichever comes first.
func (e *example) running(call context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(call)
	unhook := context.AfterFunc(e.stopped, cancel)
	return ctx, func() { unhook(); cancel() }
}

type counterOutput struct {
	Value int `json:"value" jsonschema:"the counter after this call"`
}

func (e *example) addCounter() {
	closedWorld := false
	mcp.AddTool(e.server, &mcp.Tool{
		Name:  "counter",
		Title: "Session counter",
		Description: "Adds one to this session's counter and returns it. The counter is in the server's memory and belongs " +
			"to the session: 1, 2, 3 and so on shows that every request reached the same session.",
		Annotations: &mcp.ToolAnnotations{OpenWorldHint: &closedWorld, DestructiveHint: &closedWorld},
	}, func(_ context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, counterOutput, error) {
		value := e.counters.add(req.Session)
		return text("This session's counter is now %d.", value), counterOutput{Value: value}, nil
	})
	e.server.AddResource(&mcp.Resource{
		Name:        "counter",
		Title:       "Session counter",
		URI:         counterURI,
		MIMEType:    "text/plain",
		Description: "This session's counter, unchanged by reading it.",
	}, func(_ context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{
			URI: req.Params.URI, MIMEType: "text/plain", Text: strconv.Itoa(e.counters.get(req.Session)),
		}}}, nil
	})
}

type slowInput struct {
	Seconds float64 `json:"seconds"`
	Steps   int     `json:"steps"`
}

// The schemas are written out because a Go type cannot say what the bounds and the defaults are.
const slowSchema = `{
	"type": "object",
	"properties": {
		"seconds": {"type": "number", "minimum": 0, "maximum": 60, "default": 3, "description": "how long to take in all"},
		"steps": {"type": "integer", "minimum": 1, "maximum": 20, "default": 5, "description": "how many times to report progress"}
	},
	"additionalProperties": false
}`

func (e *example) addSlow() {
	closedWorld := false
	mcp.AddTool(e.server, &mcp.Tool{
		Name:  "slow",
		Title: "Slow work",
		Description: "Takes a few seconds and reports its progress on the way, if the client sends a progress token. " +
			"Stops when it is cancelled.",
		InputSchema: json.RawMessage(slowSchema),
		Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true, OpenWorldHint: &closedWorld},
	}, func(ctx context.Context, req *mcp.CallToolRequest, in slowInput) (*mcp.CallToolResult, any, error) {
		ctx, cancel := e.running(ctx)
		defer cancel()
		pause := time.Duration(in.Seconds * float64(time.Second) / float64(in.Steps))
		for step := 1; step <= in.Steps; step++ {
			select {
			case <-ctx.Done():
				return nil, nil, fmt.Errorf("cancelled after %d of %d steps", step-1, in.Steps)
			case <-time.After(pause):
			}
			notifyStep(ctx, req, step, in.Steps)
		}
		return text("Done: %d steps in %v seconds.", in.Steps, in.Seconds), nil, nil
	})
}

// notifyStep tells a client that asked for it how far a call has come. A client that has broken off cannot be told, and
// that is no reason to stop: in the revisions with sessions a disconnect is not a cancel.
func notifyStep(ctx context.Context, req *mcp.CallToolRequest, step, steps int) {
	token := req.Params.GetProgressToken()
	if token == nil {
		return
	}
	_ = req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
		ProgressToken: token,
		Message:       fmt.Sprintf("step %d of %d", step, steps),
		Progress:      float64(step),
		Total:         float64(steps),
	})
}

type askInput struct {
	Question string `json:"question"`
}

const (
	askSchema = `{
	"type": "object",
	"properties": {
		"question": {"type": "string", "minLength": 1, "maxLength": 200, "default": "What should the demo call you?",
			"description": "what to ask the person at the client"}
	},
	"additionalProperties": false
}`
	answerSchema = `{
	"type": "object",
	"properties": {"answer": {"type": "string", "title": "Your answer", "maxLength": 500}},
	"required": ["answer"]
}`
)

func (e *example) addAsk() {
	mcp.AddTool(e.server, &mcp.Tool{
		Name:  "ask",
		Title: "Ask the person at the client",
		Description: "Asks the person at the client a question (elicitation) and returns the answer. The answer comes back in " +
			"a request of its own, usually through another replica than the question went out by.",
		InputSchema: json.RawMessage(askSchema),
		Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true},
	}, func(ctx context.Context, req *mcp.CallToolRequest, in askInput) (*mcp.CallToolResult, any, error) {
		if !canElicit(req.Session) {
			return text("This client cannot be asked: it did not offer the elicitation capability when it initialized. " +
				"Try a client that does, such as the MCP Inspector."), nil, nil
		}
		ctx, cancel := e.running(ctx)
		defer cancel()
		ctx, cancelTimeout := context.WithTimeout(ctx, askTimeout)
		defer cancelTimeout()
		reply, err := req.Session.Elicit(ctx, &mcp.ElicitParams{
			Mode: "form", Message: in.Question, RequestedSchema: json.RawMessage(answerSchema),
		})
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return nil, nil, fmt.Errorf("nobody answered within %v minutes", askTimeout.Minutes())
		case err != nil:
			return nil, nil, fmt.Errorf("asking the client: %w", err)
		case reply.Action != "accept":
			return text("The question was not answered: %s.", reply.Action), nil, nil
		}
		return text("The answer is: %v", reply.Content["answer"]), nil, nil
	})
}

// canElicit reports whether the client lets itself be asked by a form. A client that names no mode means forms.
func canElicit(session *mcp.ServerSession) bool {
	params := session.InitializeParams()
	if params == nil || params.Capabilities == nil || params.Capabilities.Elicitation == nil {
		return false
	}
	modes := params.Capabilities.Elicitation
	return modes.Form != nil || modes.URL == nil
}

func (e *example) addTour() {
	e.server.AddPrompt(&mcp.Prompt{
		Name:        "tour",
		Title:       "Tour of the demo",
		Description: "Has the model try every tool of the demo.",
	}, func(context.Context, *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{
			Role: "user",
			Content: &mcp.TextContent{Text: "Call the counter tool six times, one call after the other, then slow, then ask. " +
				"Say what each returned, and whether the counter went up by one each time."},
		}}}, nil
	})
}

func text(format string, args ...any) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: fmt.Sprintf(format, args...)}}}
}
