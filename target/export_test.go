package target

import "net"

// Free returns the memory that no session has.
func (s *Server) Free() (small, large int64) {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	return s.budget.small.Load(), s.budget.large
}

// LeaveHalfSent has every session end as if its reader had begun to send the answer of a task that holds n bytes, and the writer had ended before
// it could go on with it. It is called while they do nothing.
func (s *Server) LeaveHalfSent(n int64) (sessions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range s.sessions {
		if !s.budget.takeLarge(x, 0, n) {
			panic("no memory is left")
		}
		x.mu.Lock()
		x.charged += n
		x.mu.Unlock()
		x.out.mu.Lock()
		x.out.left = append(x.out.left, item{kind: itemTask, task: heldTask(n)})
		x.out.mu.Unlock()
		sessions++
	}
	return sessions
}

// ServeConn serves one connection and returns when it has ended.
func (s *Server) ServeConn(c net.Conn) {
	s.work.Add(1)
	s.serve(c)
}

func heldTask(n int64) *Task {
	t := new(Task)
	t.large = n
	return t
}
