package scsi

import (
	"encoding/binary"
	"sync/atomic"
)

// Space is what a volume uses of its pools and could still use, in bytes, in the fullest of them.
type Space struct {
	Used      int64
	Available int64
}

// thresholdShift is the size of a threshold set in bytes, as a power of two: the unit of the counts in log page 0Ch.
const thresholdShift = 20

type space struct{ now atomic.Pointer[Space] }

// SetSpace tells the LU what it uses and could use.
func (lu *LU) SetSpace(s Space) { lu.space.now.Store(&s) }

// SoftThreshold tells hosts that a pool behind the LU fills up: UNIT ATTENTION 38h/07h (SBC-3 4.7.3.7.5).
func (lu *LU) SoftThreshold() {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.attend(nil, ascSoftThreshold)
}

// provisioning is the body of log page 0Ch from a parameter on; nil if there is none. Its counts are of threshold sets,
// shared with whatever else is in the pools.
func (lu *LU) provisioning(from uint16) []byte {
	s := lu.space.now.Load()
	if s == nil {
		s = &Space{}
	}
	var b []byte
	for code, n := range []int64{s.Available, s.Used} {
		if uint16(code+1) < from {
			continue
		}
		b = append(b, 0, byte(code+1), 0x03, 8)
		b = binary.BigEndian.AppendUint32(b, uint32(min(n>>thresholdShift, 1<<32-1)))
		b = append(b, 2, 0, 0, 0) // not dedicated to this unit
	}
	return b
}
