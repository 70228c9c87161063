package demo

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// printQueue is how many lines may wait for a terminal that has been stopped (Ctrl-S) or is slow.
const printQueue = 1024

// printer writes a line per request without ever making a request wait: when the queue is full, lines are counted
// instead of kept, and the count is shown as soon as there is room.
type printer struct {
	out     io.Writer
	style   style
	queue   chan string
	dropped atomic.Int64
}

func newPrinter(out io.Writer, style style) *printer {
	return &printer{out: out, style: style, queue: make(chan string, printQueue)}
}

// add shows a request, soon.
func (p *printer) add(l line) { p.say(p.style.format(l)) }

// say shows a line of text, soon.
func (p *printer) say(text string) {
	select {
	case p.queue <- text:
	default:
		p.dropped.Add(1)
	}
}

// run writes lines until ctx ends, and then those that are still waiting. It returns the first error of the writer; from
// then on nothing is written, as when the reader of a pipe has gone.
func (p *printer) run(ctx context.Context) error {
	for {
		select {
		case text := <-p.queue:
			if err := p.print(text); err != nil {
				return err
			}
		case <-ctx.Done():
			return p.flush()
		}
	}
}

func (p *printer) flush() error {
	for {
		select {
		case text := <-p.queue:
			if err := p.print(text); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (p *printer) print(text string) error {
	if dropped := p.dropped.Swap(0); dropped > 0 {
		if _, err := fmt.Fprintf(p.out, "%s\n", p.style.paint(faint, fmt.Sprintf("(%d lines not shown)", dropped))); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(p.out, text)
	return err
}
