package scsi

import (
	"encoding/binary"
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

// maxCopies bounds the copies of a nexus that are under way, and the results that are kept for it.
const maxCopies = 16

// Copy operation status (SPC-4 table 207).
const (
	copyUnderWay = 0x00
	copyDone     = 0x01
	copyFailed   = 0x02
)

// copies are those of a nexus that are under way, and the results of those with a list identifier.
type copies struct {
	mu      sync.Mutex
	running int
	results []copyResult // oldest first
}

type copyResult struct {
	k        *copying
	id       uint32
	status   byte
	segments int
	bytes    int64
}

// begin takes a copy in, or says why it cannot be begun.
func (p *copies) begin(k *copying) sense {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == maxCopies {
		return sense{key: gotgt.COPY_ABORTED, asc: ascResources}
	}
	if k.kept {
		for i, r := range p.results {
			if r.id != k.id {
				continue
			}
			if r.status == copyUnderWay {
				return sense{key: gotgt.ILLEGAL_REQUEST, asc: ascInProgress}
			}
			p.results = append(p.results[:i], p.results[i+1:]...)
			break
		}
		if len(p.results) == maxCopies {
			p.forget()
		}
		p.results = append(p.results, copyResult{k: k, id: k.id})
	}
	p.running++
	return sense{}
}

// forget drops the oldest result of a copy that has ended. There is one: fewer copies run than results are kept.
func (p *copies) forget() {
	for i, r := range p.results {
		if r.status != copyUnderWay {
			p.results = append(p.results[:i], p.results[i+1:]...)
			return
		}
	}
}

func (p *copies) end(k *copying, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	for i := range p.results {
		if r := &p.results[i]; r.k == k {
			r.k, r.segments, r.bytes, r.status = nil, k.past, k.total, copyDone
			if err != nil {
				r.status = copyFailed
			}
		}
	}
}

// take returns the result of a copy, which is thereby forgotten if it has ended.
func (p *copies) take(id uint32) (copyResult, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.results {
		if r.id == id {
			if r.status != copyUnderWay {
				p.results = append(p.results[:i], p.results[i+1:]...)
			}
			return r, true
		}
	}
	return copyResult{}, false
}

// copyResults does RECEIVE COPY RESULTS.
func copyResults(_ int, cmd *api.SCSICommand) api.SAMStat {
	cdb := cmd.SCB
	allocation := uint64(binary.BigEndian.Uint32(cdb[10:]))
	p := &callOf(cmd).nexus.copies
	switch cdb[1] & 0x1f {
	case saCopyOperating:
		return answer(cmd, copyOperating(), allocation)
	case saCopyStatus1:
		r, ok := p.take(uint32(cdb[2]))
		if !ok {
			return refuse(cmd, invalidField())
		}
		b := make([]byte, 12)
		b[3], b[4] = 8, r.status
		binary.BigEndian.PutUint16(b[5:], uint16(r.segments))
		b[7] = 1 // KiB
		binary.BigEndian.PutUint32(b[8:], uint32(r.bytes>>10))
		return answer(cmd, b, allocation)
	case saCopyStatus4:
		r, ok := p.take(binary.BigEndian.Uint32(cdb[2:]))
		if !ok {
			return refuse(cmd, invalidField())
		}
		b := make([]byte, 32)
		b[3], b[4], b[5] = 28, 0x01, r.status // the answer concerns an EXTENDED COPY(LID4)
		binary.BigEndian.PutUint64(b[16:], uint64(r.bytes))
		binary.BigEndian.PutUint16(b[24:], uint16(r.segments))
		return answer(cmd, b, allocation)
	}
	return refuse(cmd, invalidOp())
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
