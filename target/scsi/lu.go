package scsi

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore" // gotgt's constructors panic without it

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/reserve"
)

// maxTransfer bounds READ and WRITE in bytes where the device allows more.
const maxTransfer = 8 << 20

// Vendor, product and revision of INQUIRY. They are part of what hosts remember a disk by: they never change.
const (
	vendorID  = "PMSAPP"
	productID = "VDISK"
	revision  = "0001"
)

// LU is a logical unit: a volume as hosts see it. It may be in the LUN maps of several targets.
type LU struct {
	id    ids.Volume
	state atomic.Pointer[state]
	table []gotgt.SCSIDeviceOperation

	space   space
	swp     atomic.Bool // SOFTWARE WRITE PROTECT, until the unit is reset or stands by
	arbiter *arbiter
	around  Around
	asking  atomic.Int32 // commands about reservations that the node which serves was asked and has not answered

	mu      sync.Mutex
	nexuses map[*attentions]struct{}
	lost    map[reserve.Nexus]int // see lostNow
	last    block.Geometry        // of the device that was served last
	size    int64                 // of the unit, as hosts were last told, in bytes, and of its blocks; 0: not yet
	logical int
	expects block.Geometry // Expect's
}

// state is what an LU serves; it never changes.
type state struct {
	dev   block.Device   // nil: stands by
	geo   block.Geometry // where it stands by: what is expected, or nothing
	shift uint           // of a logical block
	count uint64
	max   uint64 // blocks of one READ or WRITE
	locks *locks // nil: outcomes of COMPARE AND WRITE are not remembered
	api   *api.SCSILu
}

// NewLU returns an LU of a volume that stands by.
func NewLU(volume ids.Volume) *LU { return NewLUAmong(volume, Around{}) }

// NewLUAmong returns an LU that stands by and knows of the other nodes.
func NewLUAmong(volume ids.Volume, around Around) *LU {
	lu := &LU{id: volume, around: around, arbiter: newArbiter(), nexuses: make(map[*attentions]struct{})}
	lu.table = lu.newTable()
	lu.Standby()
	return lu
}

// Volume is the volume's id.
func (lu *LU) Volume() ids.Volume { return lu.id }

// Serve makes the LU serve dev from now on, and has keeper keep its reservations; without one commands about them are answered
// BUSY. Commands under way end on the device that they began on. If hosts have known another size they are told,
// as they are if what they wrote and did not flush may be lost.
func (lu *LU) Serve(dev block.Device, keeper Keeper) error {
	g := dev.Geometry()
	if g.Logical != 512 && g.Logical != 4096 || g.Physical < g.Logical || g.Physical > 65536 ||
		g.Physical&(g.Physical-1) != 0 || g.Size < int64(g.Logical) || g.Size%int64(g.Logical) != 0 ||
		g.MaxLen < int64(g.Physical) {
		return fmt.Errorf("scsi: volume %s: %+v is not a geometry that can be served", lu.id, g)
	}
	st := lu.newState(dev, g)
	lu.arbiter.serve(dev, keeper) // before a command can reach dev
	lu.mu.Lock()
	defer lu.mu.Unlock()
	old := lu.state.Load()
	switch {
	case old.dev == dev: // one table of locks for a device: what is under way counts
		st.locks = old.locks
	case keeper != nil:
		st.locks = newLocks(keeper)
	}
	if lu.state.Store(st); st.locks != old.locks {
		old.locks.close()
	}
	lu.capacity(g)
	if lu.last.Size != 0 && lu.last.Volatile != g.Volatile {
		lu.attend(nil, ascModeChanged) // WCE
	}
	if lu.last.Losses != g.Losses {
		lu.attend(nil, ascPowerOn) // to a host it is a disk whose write cache was lost (invariant 10)
	}
	lu.last = g
	return nil
}

// newState makes the state of a unit that serves dev, or stands by.
func (lu *LU) newState(dev block.Device, g block.Geometry) *state {
	st := &state{dev: dev, geo: g}
	if g.Logical != 0 {
		st.shift = uint(bits.TrailingZeros(uint(g.Logical)))
		st.count = uint64(g.Size) >> st.shift
		st.max = uint64(min(g.MaxLen, maxTransfer)) >> st.shift
	}
	st.api = lu.describe(st)
	return st
}

// capacity tells hosts that the unit has another size than they were told. Called with mu.
func (lu *LU) capacity(g block.Geometry) {
	if lu.size != 0 && (lu.size != g.Size || lu.logical != g.Logical) {
		lu.attend(nil, ascCapacityChanged)
	}
	lu.size, lu.logical = g.Size, g.Logical
}

// Expect says what the device will be like when one is served. A unit that stands by describes its limits by that: a host reads
// them once, when it finds a path, and believes them for as long as it has the path.
func (lu *LU) Expect(g block.Geometry) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	if lu.expects == g {
		return
	}
	lu.expects = g
	if !lu.Serving() {
		lu.capacity(g)
		lu.state.Store(lu.newState(nil, g))
	}
}

// Standby makes the LU NOT READY. Commands under way end on the device that they began on.
func (lu *LU) Standby() {
	lu.mu.Lock()
	old := lu.state.Swap(lu.newState(nil, lu.expects))
	lu.mu.Unlock()
	if old != nil {
		old.locks.close()
	}
	lu.arbiter.standby()
	lu.swp.Store(false)
}

func (lu *LU) writeProtected() bool { return lu.swp.Load() }

// protect sets or clears SOFTWARE WRITE PROTECT, and tells the other nexuses.
func (lu *LU) protect(on bool, by *attentions) {
	if lu.swp.Swap(on) == on {
		return
	}
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.attend(by, ascModeChanged)
}

// Serving tells whether the LU has a device.
func (lu *LU) Serving() bool { return lu.state.Load().dev != nil }

// InquiryChanged tells hosts that what INQUIRY answers has changed.
func (lu *LU) InquiryChanged() {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	lu.attend(nil, uint16(gotgt.ASC_INQUIRY_DATA_HAS_CHANGED))
}

// describe makes gotgt's picture of the LU.
func (lu *LU) describe(st *state) *api.SCSILu {
	g := &api.SCSILu{
		Size:           uint64(st.geo.Size),
		BlockShift:     st.shift,
		PerformCommand: lu.perform,
		DeviceProtocol: gotgt.SBCSCSIDeviceProtocol{BaseSCSIDeviceProtocol: gotgt.BaseSCSIDeviceProtocol{
			DeviceType: api.TYPE_DISK, SCSIDeviceOps: lu.table}},
	}
	g.Attrs.DeviceType = api.TYPE_DISK
	g.Attrs.VendorID, g.Attrs.ProductID, g.Attrs.ProductRev = vendorID, productID, revision
	g.Attrs.SCSISN = lu.id.String()
	g.Attrs.ThinProvisioning = true
	g.Attrs.Online = st.dev != nil
	if st.dev != nil {
		g.Attrs.Lbppbe = bits.TrailingZeros(uint(st.geo.Physical / st.geo.Logical))
	}
	return g
}

// attentions are the unit attention conditions of one nexus for one LU, oldest first (SAM-5 5.14).
type attentions struct {
	any   atomic.Bool       // pending is not empty: the hot path's look
	taken func(code uint16) // told of each that was reported; set once, may be nil
	mu    sync.Mutex
	queue []uint16
}

// maxAttentions bounds the queue; each condition is there once.
const maxAttentions = 8

func (a *attentions) add(asc uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) < maxAttentions && !slices.Contains(a.queue, asc) {
		a.queue = append(a.queue, asc)
		a.any.Store(true)
	}
}

// take removes and returns the oldest.
func (a *attentions) take() (s sense, ok bool) {
	a.mu.Lock()
	if len(a.queue) == 0 {
		a.mu.Unlock()
		return sense{}, false
	}
	s = sense{key: gotgt.UNIT_ATTENTION, asc: a.queue[0]}
	a.queue = a.queue[1:]
	a.any.Store(len(a.queue) > 0)
	a.mu.Unlock()
	if a.taken != nil {
		a.taken(s.asc)
	}
	return s, true
}

func (a *attentions) has(asc uint16) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.queue, asc)
}

// attend establishes a unit attention for all nexuses but one. Called with mu.
func (lu *LU) attend(but *attentions, asc uint16) {
	for a := range lu.nexuses {
		if a != but {
			a.add(asc)
		}
	}
}

// join makes a nexus known to the LU. It begins with the condition that tells of a new nexus.
func (lu *LU) join() *attentions {
	a := &attentions{}
	a.add(uint16(gotgt.ASC_POWERON_RESET))
	lu.mu.Lock()
	lu.nexuses[a] = struct{}{}
	lu.mu.Unlock()
	return a
}

func (lu *LU) leave(a *attentions) {
	lu.mu.Lock()
	delete(lu.nexuses, a)
	lu.mu.Unlock()
}
