package cluster

import "fmt"

// ErrNotSent means that the store was not even asked, because it cannot be reached or has not answered of late: nothing of
// what was to be asked has happened. It is also an [ErrStoreUnavailable].
var ErrNotSent = fmt.Errorf("%w: it was not asked", ErrStoreUnavailable)
