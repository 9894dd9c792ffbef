package target

import "net"

// Free returns the memory that no session has.
func (s *Server) Free() (small, large int64) {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	return s.budget.small.Load(), s.budget.large
}

// ServeConn serves one connection and returns when it has ended.
func (s *Server) ServeConn(c net.Conn) {
	s.work.Add(1)
	s.serve(c)
}
