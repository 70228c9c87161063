package demo

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func startExample(t *testing.T) (*example, string) {
	t.Helper()
	e := newExample("test")
	server := httptest.NewServer(e.handler())
	t.Cleanup(func() {
		server.CloseClientConnections()
		if err := e.close(); err != nil {
			t.Errorf("closing the example: %v", err)
		}
		server.Close()
	})
	return e, server.URL
}

func TestCounterBelongsToItsSession(t *testing.T) {
	t.Parallel()
	_, url := startExample(t)
	first, second := connect(t, url, nil), connect(t, url, nil)
	for want := 1; want <= 3; want++ {
		if got := count(t, first); got != want {
			t.Errorf("first session's call %d returned %d", want, got)
		}
	}
	if got := count(t, second); got != 1 {
		t.Errorf("second session's first call returned %d, want 1", got)
	}
	resource, err := first.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: counterURI})
	if err != nil {
		t.Fatal(err)
	}
	if got := resource.Contents[0].Text; got != "3" {
		t.Errorf("the resource says %q, want 3", got)
	}
}

func TestCountersOfClosedSessionsAreDropped(t *testing.T) {
	t.Parallel()
	e, url := startExample(t)
	kept := connect(t, url, nil)
	count(t, kept)
	for range 2 * minCounters {
		session := connect(t, url, nil)
		count(t, session)
		if err := session.Close(); err != nil {
			t.Fatal(err)
		}
	}
	e.counters.mu.Lock()
	held := len(e.counters.values)
	e.counters.mu.Unlock()
	if held > minCounters {
		t.Errorf("%d counters are held for one open session, want at most %d", held, minCounters)
	}
	if got := count(t, kept); got != 2 {
		t.Errorf("the open session's counter is %d, want 2", got)
	}
}

func TestSlowReportsProgress(t *testing.T) {
	t.Parallel()
	_, url := startExample(t)
	progress := make(chan float64, 4)
	session := connect(t, url, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, req *mcp.ProgressNotificationClientRequest) {
			progress <- req.Params.Progress
		},
	})
	params := &mcp.CallToolParams{Name: "slow", Arguments: map[string]any{"seconds": 0.02, "steps": 4}}
	params.SetProgressToken("p")
	if got, _ := call(t.Context(), t, session, params); got != "Done: 4 steps in 0.02 seconds." {
		t.Errorf("slow returned %q", got)
	}
	for want := 1.0; want <= 4; want++ {
		if got := <-progress; got != want {
			t.Errorf("progress is %v, want %v", got, want)
		}
	}
}

func TestSlowStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	e, url := startExample(t)
	ended := make(chan struct{}, 1)
	e.server.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
			if method == "tools/call" {
				defer func() { ended <- struct{}{} }()
			}
			return next(ctx, method, req)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	session := connect(t, url, &mcp.ClientOptions{
		ProgressNotificationHandler: func(context.Context, *mcp.ProgressNotificationClientRequest) { cancel() },
	})
	params := &mcp.CallToolParams{Name: "slow", Arguments: map[string]any{"seconds": 30, "steps": 20}}
	params.SetProgressToken("p")
	if _, err := session.CallTool(ctx, params); err == nil {
		t.Error("a cancelled call returned a result")
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the tool runs on after it was cancelled")
	}
}

func TestToolsRefuseArgumentsOutOfBounds(t *testing.T) {
	t.Parallel()
	_, url := startExample(t)
	session := connect(t, url, nil)
	for name, params := range map[string]*mcp.CallToolParams{
		"seconds over the maximum":  {Name: "slow", Arguments: map[string]any{"seconds": 61}},
		"seconds below the minimum": {Name: "slow", Arguments: map[string]any{"seconds": -1}},
		"no steps":                  {Name: "slow", Arguments: map[string]any{"steps": 0}},
		"too many steps":            {Name: "slow", Arguments: map[string]any{"steps": 21}},
		"unknown argument":          {Name: "slow", Arguments: map[string]any{"pace": 1}},
		"question too long":         {Name: "ask", Arguments: map[string]any{"question": strings.Repeat("x", 201)}},
	} {
		result, err := session.CallTool(t.Context(), params)
		if err == nil && !result.IsError {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAskReturnsTheAnswer(t *testing.T) {
	t.Parallel()
	_, url := startExample(t)
	asked := make(chan string, 1)
	session := connect(t, url, &mcp.ClientOptions{
		ElicitationHandler: func(_ context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			asked <- req.Params.Message
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"answer": "forty-two"}}, nil
		},
	})
	params := &mcp.CallToolParams{Name: "ask", Arguments: map[string]any{"question": "How many?"}}
	if got, _ := call(t.Context(), t, session, params); got != "The answer is: forty-two" {
		t.Errorf("ask returned %q", got)
	}
	if got := <-asked; got != "How many?" {
		t.Errorf("the client was asked %q", got)
	}
}

func TestAskTellsADeclinedQuestion(t *testing.T) {
	t.Parallel()
	_, url := startExample(t)
	session := connect(t, url, &mcp.ClientOptions{
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			return &mcp.ElicitResult{Action: "decline"}, nil
		},
	})
	if got, _ := call(t.Context(), t, session, &mcp.CallToolParams{Name: "ask"}); got != "The question was not answered: decline." {
		t.Errorf("ask returned %q", got)
	}
}

func TestAskSaysWhenTheClientCannotBeAsked(t *testing.T) {
	t.Parallel()
	_, url := startExample(t)
	session := connect(t, url, nil)
	got, result := call(t.Context(), t, session, &mcp.CallToolParams{Name: "ask"})
	if !strings.Contains(got, "did not offer the elicitation capability") || result.IsError {
		t.Errorf("ask returned %q (error: %v)", got, result.IsError)
	}
}

func TestClosingTheExampleEndsRunningTools(t *testing.T) {
	t.Parallel()
	e, url := startExample(t)
	begun := make(chan struct{}, 20)
	session := connect(t, url, &mcp.ClientOptions{
		ProgressNotificationHandler: func(context.Context, *mcp.ProgressNotificationClientRequest) { begun <- struct{}{} },
	})
	params := &mcp.CallToolParams{Name: "slow", Arguments: map[string]any{"seconds": 40, "steps": 20}}
	params.SetProgressToken("p")
	done := make(chan error, 1)
	go func() {
		_, err := session.CallTool(t.Context(), params)
		done <- err
	}()
	<-begun
	stopped := time.Now()
	if err := e.close(); err != nil {
		t.Errorf("closing the example: %v", err)
	}
	if err := <-done; err == nil {
		t.Log("the client was told before its session ended") // either is right
	}
	if took := time.Since(stopped); took > 5*time.Second {
		t.Errorf("the tool ran on for %v after the example was closed", took)
	}
}

func TestExampleDescribesItself(t *testing.T) {
	t.Parallel()
	_, url := startExample(t)
	session := connect(t, url, nil)
	tools, err := session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tool := range tools.Tools {
		names = append(names, tool.Name)
		if tool.Description == "" || tool.InputSchema == nil {
			t.Errorf("tool %s has no description or no schema", tool.Name)
		}
	}
	if got := strings.Join(names, " "); got != "ask counter slow" {
		t.Errorf("the tools are %s", got)
	}
	prompt, err := session.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: "tour"})
	if err != nil {
		t.Fatal(err)
	}
	if encoded, _ := json.Marshal(prompt.Messages); !strings.Contains(string(encoded), "counter") {
		t.Errorf("the tour is %s", encoded)
	}
}
