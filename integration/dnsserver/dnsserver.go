// Package dnsserver answers for names whose addresses tests choose, and change.
package dnsserver

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// maxQuery is more than a query takes, in bytes.
const maxQuery = 1500

// Server is a DNS server on this machine. It is safe for concurrent use.
type Server struct {
	conn    net.PacketConn
	serving sync.WaitGroup

	mu        sync.Mutex
	addresses map[string][]netip.Addr // by name, in lower case, with a dot at its end
}

// Start begins to serve. The caller must call Close.
func Start() (*Server, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // it is bound at once
	if err != nil {
		return nil, fmt.Errorf("listen for DNS queries: %w", err)
	}
	s := &Server{conn: conn, addresses: make(map[string][]netip.Addr)}
	s.serving.Go(s.serve) // ends with Close
	return s, nil
}

// Address is where the server is asked, a "host:port" over UDP.
func (s *Server) Address() string { return s.conn.LocalAddr().String() }

// Set gives a name IPv4 addresses, instead of those that it had. A name without addresses does not exist.
func (s *Server) Set(name string, addresses ...netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addresses[strings.ToLower(name)+"."] = addresses
}

// Close ends the server.
func (s *Server) Close() error {
	err := s.conn.Close()
	s.serving.Wait()
	if err != nil {
		return fmt.Errorf("close the DNS server: %w", err)
	}
	return nil
}

func (s *Server) serve() {
	query := make([]byte, maxQuery)
	for {
		n, from, err := s.conn.ReadFrom(query)
		if err != nil {
			return // closed
		}
		if answer, err := s.answer(query[:n]); err == nil { // what is no query has no answer
			_, _ = s.conn.WriteTo(answer, from) // who is not answered asks again
		}
	}
}

// answer returns the answer to a query.
func (s *Server) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil, fmt.Errorf("a query with %d questions: %w", len(m.Questions), err)
	}
	q := m.Questions[0]
	s.mu.Lock()
	addresses := s.addresses[strings.ToLower(q.Name.String())]
	s.mu.Unlock()
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired},
		Questions: m.Questions,
	}
	if len(addresses) == 0 {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addresses {
		if q.Type == dnsmessage.TypeA {
			reply.Answers = append(reply.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
				Body:   &dnsmessage.AResource{A: a.As4()},
			})
		}
	}
	return reply.Pack()
}
