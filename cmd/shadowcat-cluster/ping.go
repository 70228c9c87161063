package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwire/shadowcat-cluster/mcp"
)

// What is read of an answer, in bytes: an initialize result may hold long instructions. And what is quoted of one in an error.
const (
	pingLimit = 1 << 20
	pingQuote = 500
)

const mostPings = 1000

func newPingCommand() *cobra.Command {
	var (
		count         = 5
		timeout       = durationFlag(10 * time.Second)
		tokenFile     string
		expectRefusal bool
	)
	command := &cobra.Command{
		Use:   "ping URL",
		Short: "Open a session, use it, and end it",
		Long: `Opens a session at an MCP server, pings it, each time over a new connection, which a balancer may send to another
replica, and ends it. Says how long each step took. Exit status 1: a step did not work.

With --expect-refusal it is the other way round: it is well when the server asks for authentication (401 or 403), and
a failure when a session can be opened without.`,
		Example: `  shadowcat-cluster ping http://127.0.0.1:8081/mcp
  shadowcat-cluster ping https://mcp.example/files/mcp --count 20 --token-file token`,
		Args: func(command *cobra.Command, args []string) error {
			if err := noSwitchValue(command, args); err != nil {
				return err
			}
			if len(args) != 1 {
				return fmt.Errorf("%d arguments where one is wanted: %w", len(args), errNoServerURL)
			}
			return nil
		},
	}
	flags := command.Flags()
	addNumber(flags, &count, "count", mostPings, "How many pings")
	flags.Var(&timeout, "timeout", "How long each step may take")
	flags.StringVar(&tokenFile, "token-file", "", "A `file` with the token to show, as Authorization: Bearer")
	flags.BoolVar(&expectRefusal, "expect-refusal", false, "Whether the server is to ask for authentication")
	command.RunE = func(command *cobra.Command, args []string) error {
		p := pinger{url: args[0], timeout: time.Duration(timeout), out: command.OutOrStdout()}
		if err := p.configure(count, tokenFile); err != nil {
			return usage(err)
		}
		defer p.client.CloseIdleConnections()
		if expectRefusal {
			return p.expectRefusal(command.Context())
		}
		return p.run(command.Context(), count)
	}
	return command
}

var errNoServerURL = errors.New("want the http or https URL of an MCP server, such as http://127.0.0.1:8081/mcp")

// pinger is an MCP client that needs no more than a session.
type pinger struct {
	url, token string
	timeout    time.Duration
	out        io.Writer
	client     *http.Client
	session    string // the token of the session, once it is open
	revision   string
}

func (p *pinger) configure(count int, tokenFile string) error {
	if u, err := url.Parse(p.url); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q: %w", visible(shownURL(p.url)), errNoServerURL)
	}
	if count < 1 || count > mostPings {
		return fmt.Errorf("--count: %d is not in 1 to %d pings", count, mostPings)
	}
	if p.timeout <= 0 {
		return fmt.Errorf("--timeout: %s is no time to wait; want more than 0, such as 10s", p.timeout)
	}
	if tokenFile != "" {
		content, err := os.ReadFile(tokenFile)
		if err != nil {
			return fmt.Errorf("--token-file: %w", err)
		}
		p.token = strings.TrimSpace(string(content))
	}
	// Each request has a connection of its own, so that it may meet any replica.
	p.client = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	return nil
}

// shownURL is what is no URL of a server, as an error may quote it: without what may be a user, a password or a query.
func shownURL(raw string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		scheme, rest = "", raw
	}
	rest, _, _ = strings.Cut(rest[strings.LastIndexByte(rest, '@')+1:], "?")
	if !found {
		return rest
	}
	return scheme + "://" + rest
}

// run is the life of one session. It is ended, however far it came.
func (p *pinger) run(ctx context.Context, count int) error {
	if err := p.step("initialize", func() error { return p.initialize(ctx) }); err != nil {
		return err
	}
	use := func() error {
		if err := p.step("notifications/initialized", func() error {
			_, _, err := p.post(ctx, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
			return err
		}); err != nil {
			return err
		}
		for i := range count {
			message := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"ping"}`, i+1)
			if err := p.step(fmt.Sprintf("ping %d", i+1), func() error { _, err := p.call(ctx, message); return err }); err != nil {
				return err
			}
		}
		return nil
	}
	err := use()
	return errors.Join(err, p.step("end", func() error { return p.end(context.WithoutCancel(ctx)) }))
}

// step runs a step, says how long it took, and names it in its error.
func (p *pinger) step(name string, run func() error) error {
	start := time.Now()
	if err := run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(p.out, "%-26s %6.1f ms\n", name, float64(time.Since(start).Microseconds())/1000)
	return nil
}

const pingInitialize = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"` + mcp.Revision20251125 +
	`","capabilities":{},"clientInfo":{"name":"` + programName + ` ping","version":"1"}}}`

func (p *pinger) initialize(ctx context.Context) error {
	response, err := p.call(ctx, pingInitialize)
	if err != nil {
		return err
	}
	if p.session == "" {
		return errors.New("the server opened no session: its answer has no " + mcp.HeaderSessionID)
	}
	p.revision = response.Version
	return nil
}

// expectRefusal tells whether a client without a token is turned away.
func (p *pinger) expectRefusal(ctx context.Context) error {
	return p.step("refused without a token", func() error {
		status, _, err := p.post(ctx, pingInitialize)
		switch {
		case status == http.StatusUnauthorized || status == http.StatusForbidden:
			return nil
		case err != nil:
			return err
		}
		return errors.Join(errors.New("the server let a client in that has not said who it is"), p.end(context.WithoutCancel(ctx)))
	})
}

// call sends a request, and returns what answers it. An error of JSON-RPC is one.
func (p *pinger) call(ctx context.Context, message string) (mcp.Message, error) {
	_, answer, err := p.post(ctx, message)
	if err != nil {
		return mcp.Message{}, err
	}
	response, err := mcp.Peek(answer)
	switch {
	case err != nil:
		return response, fmt.Errorf("the answer is no JSON-RPC message: %w", err)
	case response.Kind != mcp.KindResponse:
		return response, errors.New("the answer is no response")
	case response.Failed:
		return response, fmt.Errorf("the server answered with an error: %q", answer[:min(len(answer), pingQuote)])
	}
	return response, nil
}

// post sends a message and returns the status, and the message that answers it, wherever that is in the answer.
func (p *pinger) post(ctx context.Context, message string) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	response, err := p.send(ctx, http.MethodPost, message)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices {
		return response.StatusCode, nil, refusal(response)
	}
	p.session = cmp.Or(response.Header.Get(mcp.HeaderSessionID), p.session)
	if mcp.IsMediaType(response.Header.Get("Content-Type"), mcp.MediaTypeEventStream) {
		answer, err = firstResponse(response.Body)
	} else {
		answer, err = io.ReadAll(io.LimitReader(response.Body, pingLimit))
	}
	return response.StatusCode, answer, err
}

// end ends the session. A server may have nothing against that it goes on: 405.
func (p *pinger) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	response, err := p.send(ctx, http.MethodDelete, "")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices && response.StatusCode != http.StatusMethodNotAllowed {
		return refusal(response)
	}
	return nil
}

func (p *pinger) send(ctx context.Context, method, message string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, p.url, strings.NewReader(message))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", mcp.MediaTypeJSON+", "+mcp.MediaTypeEventStream)
	for header, value := range map[string]string{
		"Content-Type": mcp.MediaTypeJSON, mcp.HeaderSessionID: p.session, mcp.HeaderProtocolVersion: p.revision,
	} {
		if value != "" {
			request.Header.Set(header, value)
		}
	}
	if p.token != "" {
		request.Header.Set("Authorization", "Bearer "+p.token)
	}
	response, err := p.client.Do(request)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("no answer from the server within %s (--timeout)", p.timeout)
	}
	return response, err
}

// refusal says what a server answered that it should not have.
func refusal(response *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(response.Body, pingQuote)) // what can be read of it
	hint := ""
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = "; show it a token: --token-file"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		hint = "; is there an MCP server at this path?"
	}
	return fmt.Errorf("the server answered %s: %q%s", response.Status, bytes.TrimSpace(body), hint)
}

// firstResponse returns the response in a stream of events, which may hold other messages before.
func firstResponse(stream io.Reader) ([]byte, error) {
	events := mcp.NewEventReader(stream, pingLimit)
	for {
		event, err := events.Next()
		if err != nil {
			return nil, fmt.Errorf("the answer ended without a response: %w", err)
		}
		if message, err := mcp.Peek(event.Data); err == nil && message.Kind == mcp.KindResponse {
			return event.Data, nil
		}
	}
}
