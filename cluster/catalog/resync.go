package catalog

// SetResync says how the copies of resyncs and scrubs are to go, of all volumes, whoever leads.
type SetResync struct{ Resync Resync }

// Resync is what an admin has said of copies in the background. The zero value is that nothing was said.
type Resync struct {
	Paused bool  `json:",omitempty"` // none begins
	Limit  int64 `json:",omitempty"` // bytes in a second, of all of them together; 0: none
}

// MaxResync bounds Resync.Limit, in bytes in a second.
const MaxResync = 1 << 40

func (SetResync) kind() Kind { return "set-resync" }

func (s *State) setResync(b SetResync) error {
	if l := b.Resync.Limit; l < 0 || l > MaxResync {
		return invalid("a limit of %d bytes in a second", l)
	}
	s.Resync = b.Resync
	return nil
}
