package front

import (
	"bytes"
	"fmt"
)

// probe is a command that a host may send, with what kind of thing it wants to know or do.
type probe struct {
	name string
	kind kind
	cdb  []byte
	out  []byte
	in   int
}

type kind string

// Kinds of commands: what an initiator is answered depends on them and on the state of the node.
const (
	identity kind = "identity" // what the unit and the target are
	ready    kind = "ready"
	size     kind = "size"  // what the unit is like: a host believes it for as long as it has the path
	local    kind = "local" // other things that need no medium
	read     kind = "read"
	write    kind = "write"
	zero     kind = "zero" // frees space
	flush    kind = "flush"
	reserved kind = "reserved" // about reservations
	reset    kind = "reset"    // LOGICAL UNIT RESET
)

// probes are all commands of the device server, and TEST UNIT READY first. They leave nothing behind that a later one would meet.
func probes() []probe {
	block, two := bytes.Repeat([]byte{0xa5}, 512), append(bytes.Repeat([]byte{0x5a}, 512), bytes.Repeat([]byte{0xa5}, 512)...)
	pr := func(action byte, old, key byte) probe {
		return probe{"PERSISTENT RESERVE OUT", reserved, []byte{0x5f, action, 5, 0, 0, 0, 0, 0, 24, 0},
			append(append(append(make([]byte, 7), old), append(make([]byte, 7), key)...), make([]byte, 8)...), 0}
	}
	all := []probe{
		{"TEST UNIT READY", ready, []byte{0}, nil, 0},
		{"INQUIRY", identity, []byte{0x12, 0, 0, 0, 96}, nil, 96},
		{"REPORT LUNS", identity, []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0}, nil, 256},
		{"REQUEST SENSE", identity, []byte{3, 0, 0, 0, 18}, nil, 18},
		{"REPORT TARGET PORT GROUPS", identity, []byte{0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0}, nil, 256},
		{"REPORT SUPPORTED OPERATION CODES", identity, []byte{0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 16, 0}, nil, 4096},
		{"REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", identity, []byte{0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 16}, nil, 16},
		{"READ CAPACITY(10)", size, []byte{0x25}, nil, 8},
		{"READ CAPACITY(16)", size, []byte{0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}, nil, 32},
		{"MODE SENSE(6)", size, []byte{0x1a, 0, 0x3f, 0, 192}, nil, 192},
		{"MODE SENSE(10)", size, []byte{0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 192}, nil, 192},
		{"MODE SELECT(6)", local, []byte{0x15, 0x10, 0, 0, 0}, nil, 0},
		{"MODE SELECT(10)", local, []byte{0x55, 0x10}, nil, 0},
		{"LOG SENSE", local, []byte{0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 64}, nil, 64},
		{"START STOP UNIT", local, []byte{0x1b, 0, 0, 0, 1}, nil, 0},
		{"SEND DIAGNOSTIC", local, []byte{0x1d, 4}, nil, 0},
		{"READ DEFECT DATA(10)", local, []byte{0x37, 0, 0, 0, 0, 0, 0, 0, 8}, nil, 8},
		{"READ DEFECT DATA(12)", local, []byte{0xb7, 0, 0, 0, 0, 0, 0, 0, 0, 8}, nil, 8},
		{"RECEIVE COPY RESULTS", local, []byte{0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}, nil, 256},
		{"EXTENDED COPY", local, []byte{0x83}, nil, 0},
		{"PRE-FETCH(10)", local, []byte{0x34, 0, 0, 0, 0, 0, 0, 0, 8}, nil, 0},
		{"PRE-FETCH(16)", local, []byte{0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8}, nil, 0},
		{"READ(6)", read, []byte{8, 0, 0, 0, 1}, nil, 512},
		{"READ(10)", read, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1}, nil, 512},
		{"READ(12)", read, []byte{0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 1}, nil, 512},
		{"READ(16)", read, []byte{0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, nil, 512},
		{"VERIFY(10)", read, []byte{0x2f, 0, 0, 0, 0, 0, 0, 0, 1}, nil, 0},
		{"VERIFY(12)", read, []byte{0xaf, 0, 0, 0, 0, 0, 0, 0, 0, 1}, nil, 0},
		{"VERIFY(16)", read, []byte{0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, nil, 0},
		{"GET LBA STATUS", read, []byte{0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64}, nil, 64},
		{"WRITE(6)", write, []byte{0x0a, 0, 0, 0, 1}, block, 0},
		{"WRITE(10)", write, []byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, block, 0},
		{"WRITE(12)", write, []byte{0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 1}, block, 0},
		{"WRITE(16)", write, []byte{0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, block, 0},
		{"WRITE AND VERIFY(10)", write, []byte{0x2e, 0, 0, 0, 0, 0, 0, 0, 1}, block, 0},
		{"WRITE AND VERIFY(12)", write, []byte{0xae, 0, 0, 0, 0, 0, 0, 0, 0, 1}, block, 0},
		{"WRITE AND VERIFY(16)", write, []byte{0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, block, 0},
		{"WRITE SAME(10)", write, []byte{0x41, 0, 0, 0, 0, 0, 0, 0, 1}, block, 0},
		{"WRITE SAME(16)", write, []byte{0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, block, 0},
		{"ORWRITE", write, []byte{0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, block, 0},
		{"COMPARE AND WRITE", write, []byte{0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, two, 0},
		{"SYNCHRONIZE CACHE(10)", flush, []byte{0x35}, nil, 0},
		{"SYNCHRONIZE CACHE(16)", flush, []byte{0x91}, nil, 0},
		{"UNMAP", zero, []byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24}, append([]byte{0, 22, 0, 16, 0, 0, 0, 0}, append(make([]byte, 7), 8, 0, 0, 0, 8, 0, 0, 0, 0)...), 0},
		{"WRITE SAME(16) with UNMAP", zero, []byte{0x93, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8}, make([]byte, 512), 0},
		{"RESERVE(6)", reserved, []byte{0x16}, nil, 0},
		{"RELEASE(6)", reserved, []byte{0x17}, nil, 0},
		{"RESERVE(10)", reserved, []byte{0x56}, nil, 0},
		{"RELEASE(10)", reserved, []byte{0x57}, nil, 0},
		pr(6, 0, 7), pr(1, 7, 0), pr(2, 7, 0), pr(0, 7, 0),
	}
	for _, page := range []byte{0x00, 0x80, 0x83, 0x86, 0x8f, 0xb0, 0xb1, 0xb2} {
		all = append(all, probe{fmt.Sprintf("INQUIRY, page %02x", page), identity, []byte{0x12, 1, page, 0, 255}, nil, 255})
	}
	for action := range byte(4) {
		all = append(all, probe{fmt.Sprintf("PERSISTENT RESERVE IN, action %d", action), reserved, []byte{0x5e, action, 0, 0, 0, 0, 0, 1, 0}, nil, 256})
	}
	for i := range all { // CDBs of 16 bytes
		all[i].cdb = append(all[i].cdb, make([]byte, 16)...)[:16]
	}
	return all
}
