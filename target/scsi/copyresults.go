package scsi

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"
)

// Service actions of RECEIVE COPY RESULTS (SPC-4 6.16 to 6.21).
const (
	saCopyStatus1   = 0x00
	saCopyOperating = 0x03
	saCopyStatus4   = 0x05
)

// maxCopies bounds the copies of a nexus at a unit that are under way, and the results that are kept for it.
const maxCopies = 16

// Copy operation status (SPC-4 6.24): what RECEIVE COPY STATUS(LID1) and (LID4) say of a copy.
const (
	copyUnderWay1  = 0x00
	copyDone       = 0x01
	copyFailed     = 0x02
	copyUnderWay4  = 0x11 // in the foreground
	copyTerminated = 0x60 // LID4 only: it was aborted
)

// copyProgress is how far a copy is.
type copyProgress struct {
	segments int // that were begun
	bytes    int64
	commands uint16 // requests of the devices that went well
}

// copies are those of a nexus at a unit that are under way, and the results of those with a list identifier: each unit has a copy manager,
// whose identifiers are its own.
type copies struct {
	mu      sync.Mutex
	running int
	results []copyResult // oldest first
}

// copyResult is what is kept of a copy.
type copyResult struct {
	k      *copying // nil: it has ended
	id     uint32
	lid4   bool
	how    byte // copyDone, copyFailed or copyTerminated
	status byte // of the command
	sense  []byte
	far    copyProgress
}

// begin takes a copy in, or says why it cannot be begun.
func (p *copies) begin(k *copying) sense {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == maxCopies {
		return sense{key: gotgt.COPY_ABORTED, asc: ascResources}
	}
	if k.kept {
		if i := slices.IndexFunc(p.results, func(r copyResult) bool { return r.id == k.id }); i >= 0 {
			if p.results[i].k != nil {
				return sense{key: gotgt.ILLEGAL_REQUEST, asc: ascInProgress}
			}
			p.results = slices.Delete(p.results, i, i+1)
		}
		if len(p.results) == maxCopies { // fewer copies run than results are kept: one has ended
			i := slices.IndexFunc(p.results, func(r copyResult) bool { return r.k == nil })
			p.results = slices.Delete(p.results, i, i+1)
		}
		p.results = append(p.results, copyResult{k: k, id: k.id, lid4: k.lid4})
	}
	p.running++
	return sense{}
}

// end takes a copy's result over: the task has its answer.
func (p *copies) end(k *copying, how byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	for i := range p.results {
		if r := &p.results[i]; r.k == k {
			t := k.c.task
			r.k, r.how, r.status, r.sense, r.far = nil, how, t.Status, slices.Clone(t.Sense), k.progress()
		}
	}
}

// forget is what a reset of the unit does: nothing is told of copies that were begun before.
func (p *copies) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results = nil
}

// take returns the result of a copy, which is thereby forgotten if it has ended.
func (p *copies) take(id uint32) (copyResult, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.results, func(r copyResult) bool { return r.id == id })
	if i < 0 {
		return copyResult{}, false
	}
	r := p.results[i]
	if r.k != nil {
		r.far = r.k.progress()
	} else {
		p.results = slices.Delete(p.results, i, i+1)
	}
	return r, true
}

// copyResults does RECEIVE COPY RESULTS.
func copyResults(_ int, cmd *api.SCSICommand) api.SAMStat {
	cdb := cmd.SCB
	allocation := uint64(binary.BigEndian.Uint32(cdb[10:]))
	p := &callOf(cmd).io.unit.flight.copies
	var id uint32
	var format func(copyResult) []byte
	switch cdb[1] & 0x1f {
	case saCopyOperating:
		return answer(cmd, copyOperating(), allocation)
	case saCopyStatus1:
		id, format = uint32(cdb[2]), copyResult.lid1
	case saCopyStatus4:
		id, format = binary.BigEndian.Uint32(cdb[2:]), copyResult.lid4Status
	default:
		return refuse(cmd, invalidOp())
	}
	r, ok := p.take(id)
	if !ok {
		return refuse(cmd, invalidField())
	}
	return answer(cmd, format(r), allocation)
}

// lid1 is the answer to RECEIVE COPY STATUS(LID1) (SPC-4 6.25).
func (r copyResult) lid1() []byte {
	b := make([]byte, 12)
	b[3], b[4] = byte(len(b)-4), r.how
	switch {
	case r.k != nil:
		b[4] = copyUnderWay1
	case r.how == copyTerminated:
		b[4] = copyFailed
	}
	binary.BigEndian.PutUint16(b[5:], uint16(r.far.segments))
	count := r.far.bytes
	if count > math.MaxUint32 {
		b[7], count = 1, count>>10 // KiB
	}
	binary.BigEndian.PutUint32(b[8:], uint32(count))
	return b
}

// lid4Status is the answer to RECEIVE COPY STATUS(LID4) (SPC-4 6.24).
func (r copyResult) lid4Status() []byte {
	const never, unknown = 0xfffffffe, 0xffffffff // when to ask again
	b := make([]byte, 32, 32+len(r.sense)+3)
	delay := uint32(never)
	switch {
	case r.k != nil:
		b[5], delay = copyUnderWay4, unknown
	case r.how == copyTerminated:
		b[5], b[12] = r.how, api.SAM_STAT_TASK_ABORTED
	default:
		b[5], b[12], b[14] = r.how, r.status, byte(len(r.sense))
		for b = append(b, r.sense...); len(b)%4 != 0; {
			b = append(b, 0)
		}
		b[13] = byte(len(b) - 32)
	}
	if r.lid4 {
		b[4] = 1 // the service action of the EXTENDED COPY
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	binary.BigEndian.PutUint16(b[6:], r.far.commands)
	binary.BigEndian.PutUint32(b[8:], delay)
	binary.BigEndian.PutUint64(b[16:], uint64(r.far.bytes))
	binary.BigEndian.PutUint16(b[24:], uint16(r.far.segments))
	return b
}

// copyOperating is the answer to RECEIVE COPY RESULTS(OPERATING PARAMETERS) (SPC-4 6.19).
func copyOperating() []byte {
	b := make([]byte, 46)
	b[3] = byte(len(b) - 4)
	b[4] = 1 // SNLID
	binary.BigEndian.PutUint16(b[8:], maxCopyTargets)
	binary.BigEndian.PutUint16(b[10:], maxCopySegments)
	binary.BigEndian.PutUint32(b[12:], maxCopyLists)
	binary.BigEndian.PutUint32(b[16:], maxSegmentLength)
	binary.BigEndian.PutUint16(b[34:], maxCopies)
	b[36], b[37] = maxCopies, 9 // data of 512 bytes
	b[43], b[44], b[45] = 2, segmentBlocks, targetIdentified
	return b
}

// thirdParty is the body of VPD page 8Fh (SPC-4 7.8.17).
func thirdParty() []byte {
	var b []byte
	add := func(kind uint16, d ...byte) {
		for len(d)%4 != 0 {
			d = append(d, 0)
		}
		b = binary.BigEndian.AppendUint16(b, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(d)))
		b = append(b, d...)
	}
	commands := []byte{opExtendedCopy, 2, 0, 1, opCopyResults, 3, saCopyStatus1, saCopyOperating, saCopyStatus4}
	add(0x0001, append([]byte{byte(len(commands))}, commands...)...)
	limits := make([]byte, 28)
	binary.BigEndian.PutUint16(limits[4:], maxCopyTargets)
	binary.BigEndian.PutUint16(limits[6:], maxCopySegments)
	binary.BigEndian.PutUint32(limits[8:], maxCopyLists)
	add(0x0004, limits...)
	add(0x0008, 2, segmentBlocks, targetIdentified)
	add(0x000c, 0, 0)
	general := make([]byte, 32)
	binary.BigEndian.PutUint32(general, maxCopies)
	binary.BigEndian.PutUint32(general[4:], maxCopies)
	binary.BigEndian.PutUint32(general[8:], maxSegmentLength)
	general[12] = 9
	add(0x8001, general...)
	return b
}
