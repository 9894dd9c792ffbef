// Package blocktest has block devices for tests.
package blocktest

import (
	"sync"

	"pmsapp/internal/block"
)

// Memory is a volume in memory. By default it ends each request within Submit. It keeps the order of block.Device
// because it applies requests in the order of their submission, whatever the order in which they are ended.
type Memory struct {
	geo block.Geometry

	mu     sync.Mutex
	data   []byte
	has    []bool // per physical block: it holds data
	err    func(*block.Request) error
	hold   bool
	held   []*block.Request // applied, and not ended
	closed bool
	writes int
}

// NewMemory returns a volume of size bytes that reads as zeros.
func NewMemory(size int64, logical int) *Memory {
	return &Memory{geo: block.Geometry{Size: size, Logical: logical, Physical: 4096, MaxLen: 8 << 20}, data: make([]byte, size), has: make([]bool, (size+4095)/4096)}
}

// Geometry implements block.Device.
func (m *Memory) Geometry() block.Geometry { return m.geo }

// Fail makes requests end with what f returns, if that is not nil, without an effect. It is called with each request.
func (m *Memory) Fail(f func(*block.Request) error) {
	m.mu.Lock()
	m.err = f
	m.mu.Unlock()
}

// Hold makes requests stay unended until Release.
func (m *Memory) Hold() {
	m.mu.Lock()
	m.hold = true
	m.mu.Unlock()
}

// Held returns how many requests were submitted and not ended.
func (m *Memory) Held() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.held)
}

// Release ends what is held, the newest first, and holds nothing any more.
func (m *Memory) Release() {
	m.mu.Lock()
	m.hold = false
	held := m.held
	m.held = nil
	m.mu.Unlock()
	for i := len(held) - 1; i >= 0; i-- {
		held[i].Done(held[i])
	}
}

// Close makes everything that is held, and all later requests, end with block.ErrEnded.
func (m *Memory) Close() {
	m.mu.Lock()
	m.closed = true
	held := m.held
	m.held = nil
	m.mu.Unlock()
	for _, r := range held {
		r.Err = block.ErrEnded
		r.Done(r)
	}
}

// Bytes returns a copy of n bytes at off.
func (m *Memory) Bytes(off, n int64) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.data[off:off+n]...)
}

// Writes returns how many requests have changed bytes.
func (m *Memory) Writes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// Submit implements block.Device.
func (m *Memory) Submit(r *block.Request) {
	if m.apply(r) {
		r.Done(r)
	}
}

// apply does what r asks for and tells whether r is to be ended now.
func (m *Memory) apply(r *block.Request) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Err = nil
	if m.closed {
		r.Err = block.ErrEnded
		return true
	}
	if m.err != nil {
		r.Err = m.err(r)
	}
	bs := int64(m.geo.Logical)
	if r.Err == nil && (r.Off < 0 || r.Len < 0 || r.Off+r.Len > m.geo.Size || r.Off%bs != 0 || r.Len%bs != 0) {
		r.Err = block.ErrRange
	}
	if r.Err == nil {
		switch r.Op {
		case block.Read:
			copy(r.Data, m.data[r.Off:r.Off+r.Len])
		case block.Write:
			m.writes++
			m.store(r)
		case block.Update:
			copy(r.Data, m.data[r.Off:r.Off+r.Len])
			if r.Err = r.Modify(r); r.Err == nil {
				m.writes++
				m.store(r)
			}
		case block.Map:
			m.extents(r)
		case block.Zero:
			m.writes++
			clear(m.data[r.Off : r.Off+r.Len])
			for at := (r.Off + 4095) / 4096; (at+1)*4096 <= r.Off+r.Len; at++ {
				m.has[at] = false
			}
		}
	}
	if m.hold {
		m.held = append(m.held, r)
		return false
	}
	return true
}

func (m *Memory) store(r *block.Request) {
	copy(m.data[r.Off:r.Off+r.Len], r.Data)
	for at := r.Off / 4096; at*4096 < r.Off+r.Len; at++ {
		m.has[at] = true
	}
}

func (m *Memory) extents(r *block.Request) {
	for at := r.Off; at < r.Off+r.Len; {
		end := min(r.Off+r.Len, (at/4096+1)*4096)
		if m.has[at/4096] {
			if k := len(r.Extents) - 1; k >= 0 && r.Extents[k].Off+r.Extents[k].Len == at {
				r.Extents[k].Len += end - at
			} else {
				r.Extents = append(r.Extents, block.Extent{Off: at, Len: end - at})
			}
		}
		at = end
	}
}
