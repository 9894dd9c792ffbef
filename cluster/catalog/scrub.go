package catalog

import (
	"time"

	"pmsapp/internal/ids"
)

// Scrubbed records the report of a volume's last whole scrub. It changes no set and no version.
type Scrubbed struct {
	Epoch  uint64
	Volume ids.Volume
	Report ScrubReport
}

// maxRequest bounds the request id that a report names, in bytes.
const maxRequest = 64

// ScrubReport is what a scrub has found.
type ScrubReport struct {
	Began      time.Time `json:",omitzero"` // the leader's clock; nothing was read before. Zero in a report of an older program's
	Ended      time.Time // nothing was read after
	Seconds    float64
	Request    string `json:",omitempty"` // the command that it answers, "" if it began by itself
	Bytes      int64  // read, over all replicas
	Mended     int64  // that a replica could not read or prove, and that were written anew
	Unreadable int64  // that no replica can read or prove
	Differing  int64  // that were proved on each replica and were not the same
}

func (Scrubbed) kind() Kind { return "scrubbed" }

func (s *State) scrubbed(b Scrubbed) error {
	if err := s.current(b.Epoch); err != nil {
		return err
	}
	v, ok := s.Volumes[b.Volume]
	r := b.Report
	switch {
	case !ok:
		return ErrNoVolume
	case v.LastServed != b.Epoch:
		return ErrNotServed
	case r.Ended.Before(r.Began) || len(r.Request) > maxRequest || r.Ended.IsZero() || r.Seconds < 0 || r.Bytes < 0 || r.Mended < 0 || r.Unreadable < 0 || r.Differing < 0:
		return invalid("a scrub of %d bytes", r.Bytes)
	}
	v.Scrub = &r
	s.setVolume(v)
	return nil
}
