package scsi

import (
	"encoding/binary"

	gotgt "github.com/gostor/gotgt/pkg/scsi"
)

// Limits of EXTENDED COPY; hosts learn them from RECEIVE COPY RESULTS(OPERATING PARAMETERS).
const (
	maxCopyTargets   = 16
	maxCopySegments  = 64
	maxCopyLists     = maxCopyTargets*targetLen + maxCopySegments*segmentLen // bytes of both lists of descriptors
	maxCopyList      = 64 << 10                                              // bytes of a parameter list that are taken at all
	maxSegmentLength = 256 << 20                                             // bytes
	targetLen        = 32
	segmentLen       = 28
	segmentBlocks    = 0x02 // block device to block device
	targetIdentified = 0xe4 // identification descriptor
)

// copyFormat tells which form of EXTENDED COPY a CDB is: LID4 or LID1 (SPC-4 6.4, 6.5).
func copyFormat(cdb []byte) (lid4, ok bool) {
	sa := cdb[1] & 0x1f
	return sa == 1, sa <= 1
}

// copyList is a parameter list of EXTENDED COPY.
type copyList struct {
	id       uint32
	discard  bool // LIST ID USAGE 11b: no list identifier, nothing is kept for RECEIVE COPY RESULTS
	targets  []copyTarget
	segments []copySegment
}

// copyTarget names a logical unit by a designator of its VPD page 83h.
type copyTarget struct {
	code, kind byte // code set, designator type with its association
	name       []byte
	block      uint32 // bytes; 0: not said
}

// copySegment is a range to be copied from one target to another, or to itself.
type copySegment struct {
	from, to uint16
	n        uint64 // blocks of the source, or of the destination
	ofTarget bool   // n counts blocks of the destination (DC)
	source   uint64
	target   uint64
}

// parseCopyList reads a parameter list. A list that is shorter than it says is a PARAMETER LIST LENGTH ERROR.
func parseCopyList(b []byte, lid4 bool) (copyList, sense) {
	var l copyList
	short := illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
	head := 16
	if lid4 {
		head = 48
	}
	if len(b) < head {
		return l, short
	}
	var targets, segments, inline uint64
	if lid4 {
		if b[0] != 1 || b[16] != 0xff || binary.BigEndian.Uint16(b[2:]) != 0x20 || b[15] != 0 { // neither IMMED nor G_SENSE
			return l, invalidParm()
		}
		l.id = binary.BigEndian.Uint32(b[20:])
		targets, segments = uint64(binary.BigEndian.Uint16(b[42:])), uint64(binary.BigEndian.Uint16(b[44:]))
		inline = uint64(binary.BigEndian.Uint16(b[46:]))
	} else {
		l.id = uint32(b[0])
		targets, segments = uint64(binary.BigEndian.Uint16(b[2:])), uint64(binary.BigEndian.Uint32(b[8:]))
		inline = uint64(binary.BigEndian.Uint32(b[12:]))
	}
	switch usage := b[1] >> 3 & 3; {
	case usage == 3:
		if l.id != 0 {
			return l, invalidParm()
		}
		l.discard = true
	case usage == 1:
		return l, invalidParm()
	}
	if targets+segments > maxCopyLists || head+int(targets+segments) > len(b) {
		return l, short
	}
	if inline != 0 {
		return l, sense{key: gotgt.ILLEGAL_REQUEST, asc: ascInlineData}
	}
	if targets%targetLen != 0 {
		return l, invalidParm()
	}
	if targets/targetLen > maxCopyTargets {
		return l, sense{key: gotgt.ILLEGAL_REQUEST, asc: ascManyTargets}
	}
	for d := b[head : head+int(targets)]; len(d) > 0; d = d[targetLen:] {
		t, s := parseCopyTarget(d[:targetLen])
		if s != (sense{}) {
			return l, s
		}
		l.targets = append(l.targets, t)
	}
	var s sense
	l.segments, s = parseCopySegments(b[head+int(targets) : head+int(targets+segments)])
	return l, s
}

func parseCopyTarget(d []byte) (t copyTarget, s sense) {
	if d[0] != targetIdentified {
		return t, sense{key: gotgt.ILLEGAL_REQUEST, asc: ascTargetType}
	}
	if d[1]&0x1f != 0 || d[7] > 20 { // a disk; a designator that has room
		return t, invalidParm()
	}
	return copyTarget{code: d[4] & 0x0f, kind: d[5] & 0x3f, name: d[8 : 8+d[7]],
		block: binary.BigEndian.Uint32(d[28:]) & 0xffffff}, s
}

func parseCopySegments(d []byte) (list []copySegment, s sense) {
	for len(d) > 0 {
		if len(d) < 4 {
			return nil, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
		}
		if d[0] != segmentBlocks {
			return nil, sense{key: gotgt.ILLEGAL_REQUEST, asc: ascSegmentType}
		}
		if binary.BigEndian.Uint16(d[2:]) != segmentLen-4 {
			return nil, invalidParm()
		}
		if len(d) < segmentLen {
			return nil, illegal(gotgt.ASC_PARAMETER_LIST_LENGTH_ERR)
		}
		if len(list) == maxCopySegments {
			return nil, sense{key: gotgt.ILLEGAL_REQUEST, asc: ascManySegments}
		}
		list = append(list, copySegment{
			from: binary.BigEndian.Uint16(d[4:]), to: binary.BigEndian.Uint16(d[6:]),
			n: uint64(binary.BigEndian.Uint16(d[10:])), ofTarget: d[1]&2 != 0,
			source: binary.BigEndian.Uint64(d[12:]), target: binary.BigEndian.Uint64(d[20:]),
		})
		d = d[segmentLen:]
	}
	return list, s
}
