package redisstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

// Bounds of a frame's strings in bytes: longer ones are cut.
const (
	maxDirection = 16
	maxMethod    = 128
	maxMessageID = 64
	maxReplica   = 64
)

// maxFramesAppend is how many frames one call takes: a script must not hold the server up.
const maxFramesAppend = 200

// frameParts is how many parts frames_read answers for each frame.
const frameParts = 10

// AppendFrames implements [cluster.FrameStore]. It is never repeated: a frame may be missing, but none is there twice.
func (s *Store) AppendFrames(ctx context.Context, id cluster.ID, frames []cluster.Frame) error {
	if len(frames) == 0 || s.cfg.FramesCount == 0 || s.cfg.FramesBytes == 0 {
		return nil
	}
	if len(frames) > maxFramesAppend {
		return fmt.Errorf("frames of session %s: %d at once, want %d at most", id, len(frames), maxFramesAppend)
	}
	p := s.partitionOf(id)
	c := call{
		script: framesAppend,
		keys:   []string{p.session(id), p.frames(id)},
		args: []any{
			s.cfg.FramesCount, s.cfg.FramesBytes, s.lifetimeMillis(), (s.cfg.Retention + backstop).Milliseconds(),
		},
	}
	for _, f := range frames {
		if len(f.Payload) > s.cfg.FramesBytes {
			f.Payload = nil // its size tells how large it was
		}
		c.args = append(c.args, encodeFrame(f)...)
	}
	_, err := s.run(ctx, c)
	return err
}

// encodeFrame returns a frame as frames_append takes it.
func encodeFrame(f cluster.Frame) []any {
	return []any{
		max(f.Age, 0).Milliseconds(), cutTo(string(f.Direction), maxDirection), cutTo(f.Method, maxMethod), cutTo(f.MessageID, maxMessageID),
		f.Size, f.Status, f.Latency.Microseconds(), cutTo(f.Replica, maxReplica), f.Payload,
	}
}

// ReadFrames implements [cluster.FrameStore].
func (s *Store) ReadFrames(ctx context.Context, q cluster.FrameQuery) (cluster.FramePage, error) {
	p := s.partitionOf(q.ID)
	reply, _, err := s.repeat(ctx, call{
		script: framesRead,
		keys:   []string{p.session(q.ID), p.frames(q.ID)},
		args:   []any{min(max(q.After, 0), maxPosition-1) + 1, min(max(q.Limit, 1), maxRead)},
	})
	if err != nil {
		return cluster.FramePage{}, err
	}
	return decodeFrames(max(q.After, 0), reply)
}

// decodeFrames reads the reply of frames_read for frames after a number.
func decodeFrames(after int64, reply []any) (cluster.FramePage, error) {
	if len(reply)%frameParts != 1 {
		return cluster.FramePage{}, unavailable(errMalformedReply)
	}
	var d decoder
	page := cluster.FramePage{Last: d.number(reply[0])}
	before := after
	for parts := reply[1:]; len(parts) > 0; parts = parts[frameParts:] {
		page.Frames = append(page.Frames, cluster.Frame{
			Number:    d.number(parts[0]),
			At:        d.moment(parts[1]),
			Direction: cluster.Direction(d.text(parts[2])),
			Method:    d.text(parts[3]),
			MessageID: d.text(parts[4]),
			Size:      int(d.number(parts[5])),
			Status:    int(d.number(parts[6])),
			Latency:   duration(d.number(parts[7]), time.Microsecond),
			Replica:   d.text(parts[8]),
			Payload:   []byte(d.text(parts[9])),
		})
		number := page.Frames[len(page.Frames)-1].Number
		if number <= before {
			d.fail("a higher number", parts[0])
		}
		before = number
	}
	if d.err != nil {
		return cluster.FramePage{}, unavailable(d.err)
	}
	if len(page.Frames) > 0 {
		page.Missed = page.Frames[0].Number - after - 1
	}
	return page, nil
}

// cutTo shortens a text to at most n bytes of valid UTF-8.
func cutTo(text string, n int) string {
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n], "")
	}
	return text
}
