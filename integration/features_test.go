package integration_test

import (
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// exerciseFeatures uses every feature of the protocol in one session, and what a client gets must be what the upstream gives.
// The same calls are made directly (the proof that the test is right) and through replicas.
func exerciseFeatures(t *testing.T, c *client) {
	t.Run("tools", func(t *testing.T) { exerciseTools(t, c) })
	t.Run("prompts", func(t *testing.T) { exercisePrompts(t, c) })
	t.Run("resources", func(t *testing.T) { exerciseResources(t, c) })
	t.Run("completion", func(t *testing.T) { exerciseCompletion(t, c) })
	t.Run("progress", func(t *testing.T) { exerciseProgress(t, c) })
	t.Run("logging", func(t *testing.T) { exerciseLogging(t, c) })
	t.Run("sampling", func(t *testing.T) { exerciseSampling(t, c) })
	t.Run("elicitation", func(t *testing.T) { exerciseElicitation(t, c) })
	t.Run("tool list changes on the GET stream", func(t *testing.T) { exerciseListChanges(t, c) })
	t.Run("resource updates on the GET stream", func(t *testing.T) { exerciseSubscription(t, c) })
	t.Run("ping", func(t *testing.T) {
		if err := c.Ping(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	})
}

func exerciseTools(t *testing.T, c *client) {
	list, err := c.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Tools) < 10 {
		t.Errorf("got %d tools, want the everything-server's", len(list.Tools))
	}
	if got, want := c.mustCall(t, "test_simple_text", nil), "This is a simple text response for testing."; got != want {
		t.Errorf("test_simple_text answered %q, want %q", got, want)
	}
	image, err := c.CallTool(t.Context(), &mcp.CallToolParams{Name: "test_image_content"})
	if err != nil {
		t.Fatal(err)
	}
	if content, ok := image.Content[0].(*mcp.ImageContent); !ok || len(content.Data) == 0 || content.MIMEType != "image/png" {
		t.Errorf("test_image_content answered %#v, want a PNG", image.Content[0])
	}
	failing, err := c.CallTool(t.Context(), &mcp.CallToolParams{Name: "test_error_handling"})
	if err != nil {
		t.Fatal(err)
	}
	if !failing.IsError {
		t.Error("test_error_handling answered without isError")
	}
	if _, err := c.CallTool(t.Context(), &mcp.CallToolParams{Name: "no_such_tool"}); err == nil {
		t.Error("calling an unknown tool succeeded, want the upstream's JSON-RPC error")
	}
}

func exercisePrompts(t *testing.T, c *client) {
	list, err := c.ListPrompts(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Prompts) == 0 {
		t.Error("got no prompts")
	}
	prompt, err := c.GetPrompt(t.Context(), &mcp.GetPromptParams{
		Name: "test_prompt_with_arguments", Arguments: map[string]string{"arg1": "ä", "arg2": "\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text([]mcp.Content{prompt.Messages[0].Content}), "Prompt with arguments: arg1='ä', arg2='\n'"; got != want {
		t.Errorf("got the prompt %q, want %q", got, want)
	}
}

func exerciseResources(t *testing.T, c *client) {
	list, err := c.ListResources(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Resources) == 0 {
		t.Error("got no resources")
	}
	templates, err := c.ListResourceTemplates(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(templates.ResourceTemplates) == 0 {
		t.Error("got no resource templates")
	}
	for uri, want := range map[string]string{
		"test://static-text":      "This is the content of the static text resource.",
		"test://template/42/data": `{"id": "42", "templateTest": true, "data": "Data for ID: 42"}`,
	} {
		resource, err := c.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: uri})
		if err != nil {
			t.Fatalf("read %s: %v", uri, err)
		}
		if got := resource.Contents[0].Text; got != want {
			t.Errorf("read %s: got %q, want %q", uri, got, want)
		}
	}
}

func exerciseCompletion(t *testing.T, c *client) {
	_, err := c.Complete(t.Context(), &mcp.CompleteParams{
		Ref:      &mcp.CompleteReference{Type: "ref/prompt", Name: "test_prompt_with_arguments"},
		Argument: mcp.CompleteParamsArgument{Name: "arg1", Value: "a"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func exerciseProgress(t *testing.T, c *client) {
	const tool = "test_tool_with_progress"
	if got, want := c.mustCall(t, tool, nil), "token-of-"+tool; got != want {
		t.Errorf("the tool saw the progress token %q, want %q", got, want)
	}
	for _, want := range []float64{0, 50, 100} {
		got := receive(t, "progress", c.progress)
		if got.Progress != want || got.ProgressToken != "token-of-"+tool {
			t.Errorf("got progress %v for %v, want %v for this call", got.Progress, got.ProgressToken, want)
		}
	}
}

func exerciseLogging(t *testing.T, c *client) {
	if err := c.SetLoggingLevel(t.Context(), &mcp.SetLoggingLevelParams{Level: "info"}); err != nil {
		t.Fatal(err)
	}
	c.mustCall(t, "test_tool_with_logging", nil)
	for _, want := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
		if got := receive(t, "log message", c.logs); got.Data != want {
			t.Errorf("got the log message %v, want %q", got.Data, want)
		}
	}
}

func exerciseSampling(t *testing.T, c *client) {
	got := c.mustCall(t, "test_sampling", map[string]any{"prompt": "meow"})
	if want := "LLM response: you said meow"; got != want {
		t.Errorf("test_sampling answered %q, want %q", got, want)
	}
}

func exerciseElicitation(t *testing.T, c *client) {
	got := c.mustCall(t, "test_elicitation", map[string]any{"message": "who?"})
	if !strings.Contains(got, "action=accept") || !strings.Contains(got, "username:lynx") {
		t.Errorf("test_elicitation answered %q, want the client's answer in it", got)
	}
}

func exerciseListChanges(t *testing.T, c *client) {
	c.mustCall(t, "test_trigger_tool_change", nil)
	receive(t, "notifications/tools/list_changed", c.toolChanges)
}

func exerciseSubscription(t *testing.T, c *client) {
	const uri = "test://watched-resource"
	if err := c.Subscribe(t.Context(), &mcp.SubscribeParams{URI: uri}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, "notifications/resources/updated", c.updates); got.URI != uri {
		t.Errorf("got an update of %s, want %s", got.URI, uri)
	}
	if err := c.Unsubscribe(t.Context(), &mcp.UnsubscribeParams{URI: uri}); err != nil {
		t.Fatal(err)
	}
}
