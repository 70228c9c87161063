package lossyproxy

// hold is a request that does not arrive before it is let go.
type hold struct {
	match    []byte
	held     chan struct{} // closed when it has come
	released chan struct{} // closed when it may go on
}

// Freeze lets nothing pass from now on, either way, while all connections stay open and new ones are accepted: a network that
// swallows packets. What comes meanwhile passes after Thaw.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
	}
}

// Thaw ends Freeze.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
}

// Hold keeps the next request that holds the text match on its way, and what its connection sends after it, until release is
// called, however long that takes and whatever becomes of the client: a request that arrives late. held is closed when there
// is such a request. Only one can be waited for at a time; release must be called once.
func (p *Proxy) Hold(match string) (held <-chan struct{}, release func()) {
	h := &hold{match: []byte(match), held: make(chan struct{}), released: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = h
	return h.held, func() { close(h.released) }
}

// await waits until a chunk may pass, or nothing will any more.
func (p *Proxy) await(gates [2]<-chan struct{}) {
	for _, gate := range gates {
		if gate == nil {
			continue
		}
		select {
		case <-gate:
		case <-p.closed:
		}
	}
}
