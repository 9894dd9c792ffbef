package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Raft doubles its pause after each failed attempt to replicate to a node, up to 10 s, and nothing cuts a pause short: a
// node that was away for a minute would be without the log, and useless as a quorum's other half, for seconds after it is
// back. So an attempt does not fail as long as there is a chance: it is repeated here, at short intervals, until the node
// answers. Heartbeats fail at once, as Raft wants it; their pause is bounded by its timeout.

// patience is the pause between two attempts.
const patience = 100 * time.Millisecond

// isHeartbeat tells what Raft sends only to be heard.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return len(a.Entries) == 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && a.LeaderCommitIndex == 0
}

// patiently repeats try while it fails and again, which waits, says so.
func patiently(a *raft.AppendEntriesRequest, try func() error, again func() bool) error {
	for {
		err := try()
		if err == nil || isHeartbeat(a) || !again() {
			return err
		}
	}
}

// hopes tells, after a pause, whether an append of a term to a server still has a purpose: this node leads in that term, and
// the other is one of the configuration, at that address.
func (c *Cluster) hopes(id raft.ServerID, addr raft.ServerAddress, term uint64) bool {
	select {
	case <-c.ctx.Done():
		return false
	case <-c.started: // Raft works before NewRaft returns
	}
	select {
	case <-c.ctx.Done():
		return false
	case <-time.After(patience):
	}
	return hopeful(c.raft, id, addr, term)
}

func hopeful(r *raft.Raft, id raft.ServerID, addr raft.ServerAddress, term uint64) bool {
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return false
	}
	f := r.GetConfiguration()
	return f.Error() == nil && slices.ContainsFunc(f.Configuration().Servers, func(s raft.Server) bool {
		return s.ID == id && s.Address == addr
	})
}
