package front

import (
	"pmsapp/internal/ids"
	"pmsapp/target/scsi"
)

// SoftThreshold tells the hosts of a volume that a pool behind it fills up.
func (h *Hosts) SoftThreshold(v ids.Volume) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.targets {
		if x.Volume == v {
			x.lu.SoftThreshold()
		}
	}
}

// SetSpace tells a volume's LU what its fullest pool has.
func (h *Hosts) SetSpace(v ids.Volume, s scsi.Space) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.targets {
		if x.Volume == v {
			x.lu.SetSpace(s)
		}
	}
}
