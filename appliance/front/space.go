package front

import (
	"pmsapp/internal/ids"
	"pmsapp/target/scsi"
)

// of are the LUs of a volume: the one that is exported, and the one that is mapped. Called with mu.
func (h *Hosts) of(v ids.Volume) (all []*scsi.LU) {
	for _, x := range h.targets {
		if x.Volume == v {
			all = append(all, x.lu)
		}
	}
	if u := h.units[v]; u != nil {
		all = append(all, u.lu)
	}
	return all
}

// SoftThreshold tells the hosts of a volume that a pool behind it fills up.
func (h *Hosts) SoftThreshold(v ids.Volume) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, lu := range h.of(v) {
		lu.SoftThreshold()
	}
}

// SetSpace tells a volume's LUs what its fullest pool has.
func (h *Hosts) SetSpace(v ids.Volume, s scsi.Space) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, lu := range h.of(v) {
		lu.SetSpace(s)
	}
}
