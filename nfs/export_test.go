package nfs

// FindSlowly has the lock managers of clients be looked for as long as a grant may take: a machine that stands still for longer than
// they usually have is no reason for a test to see a waiter given up.
func FindSlowly(s *Server) { s.grants.find = grantTimeout }
