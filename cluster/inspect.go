package cluster

import (
	"context"
	"fmt"
)

// Pending returns the requests of a session that are in flight and have outlived one report interval, the oldest first, at most 1000.
// Errors: [ErrNotFound], [ErrStoreUnavailable].
func (m *Manager) Pending(ctx context.Context, id ID) ([]PendingRequest, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	all, err := m.store.ReadPending(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("reading the requests in flight of session %s: %w", id, err)
	}
	return all, nil
}

// Frames reads what was recorded of a session, live or ended. Errors: [ErrNotFound], [ErrStoreUnavailable].
func (m *Manager) Frames(ctx context.Context, q FrameQuery) (FramePage, error) {
	ctx, cancel := m.storeContext(ctx)
	defer cancel()
	page, err := m.store.ReadFrames(ctx, q)
	if err != nil {
		return FramePage{}, fmt.Errorf("reading the recording of session %s: %w", q.ID, err)
	}
	return page, nil
}
