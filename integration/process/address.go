package process

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Addresses are drawn from below the range that Linux gives to outgoing connections (32768 and up): a port in that range may be
// taken by any client between the moment it was found free and the moment, or the restart, at which a process listens on it.
const (
	firstPort = 12000
	lastPort  = 32000
	portTries = 200
)

var handedOut struct {
	sync.Mutex
	ports map[int]bool
}

// FreeAddress returns a loopback address ("127.0.0.1:port") on which nothing listens and which it has not returned before. Another
// program may still take it before it is used: whoever starts a process on it should try again with another.
func FreeAddress() (string, error) {
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports == nil {
		handedOut.ports = make(map[int]bool)
	}
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if handedOut.ports[port] {
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return "", fmt.Errorf("find a free port: %w", err)
		}
		handedOut.ports[port] = true
		return address, nil
	}
	return "", fmt.Errorf("find a free port: none of %d tries between %d and %d succeeded", portTries, firstPort, lastPort)
}
