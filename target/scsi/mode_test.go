package scsi_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pmsapp/target"
	"pmsapp/target/scsi"
)

// control is the parameter list of MODE SELECT(6) with the control mode page as MODE SENSE(6) gives it.
func (r *rig) control() []byte {
	b := bytes.Clone(r.good(r.do(cdb(0x1a, 8, 0x0a, 0, 64), nil, 64)))
	b[0], b[2] = 0, 0
	return b
}

func (r *rig) modeSelect(list []byte) *target.Task {
	return r.do(cdb(0x15, 0x10, 0, 0, byte(len(list))), list, 0)
}

func TestWriteProtect(t *testing.T) {
	r := newRig(t)
	other := *r
	other.nexus = r.target.Nexus(target.Login{})
	other.attention(0x2900)
	list := r.control()
	list[4+4] |= 8 // SWP
	r.good(r.modeSelect(list))
	other.attention(0x2a01)
	protected := func(yes bool) {
		t.Helper()
		writes := r.dev.Writes()
		for _, w := range []*target.Task{
			r.do(rw10(0x2a, 0, 0, 1), fill(512, 1), 0), r.do(rw10(0x41, 0, 0, 1), fill(512, 1), 0),
			r.do(caw(50, 1), make([]byte, 1024), 0), r.do(rw16(0x8b, 0, 0, 1), fill(512, 1), 0),
			r.do(cdb(0x42, 0, 0, 0, 0, 0, 0, 0, 24), unmapList(0, 1), 0),
		} {
			if yes {
				r.sense(w, 7, 0x2702)
			} else {
				r.good(w)
			}
		}
		if wrote := r.dev.Writes() != writes; wrote == yes {
			t.Errorf("writes: %v", wrote)
		}
		r.good(r.do(rw10(0x28, 0, 0, 1), nil, 512))
		if b := r.good(r.do(cdb(0x1a, 8, 0x3f, 0, 255), nil, 255)); b[2]&0x80 != 0 != yes {
			t.Errorf("WP: %x", b[2])
		}
	}
	protected(true)
	r.good(r.modeSelect(list)) // the same again: nobody is told
	other.good(other.do(cdb(0x00), nil, 0))
	list[4+4] = 0
	r.good(r.modeSelect(list))
	other.attention(0x2a01)
	protected(false)
	// A reset takes it away.
	list[4+4] = 8
	r.good(r.modeSelect(list))
	r.nexus.Manage(target.Management{Function: target.LogicalUnitReset, LUN: r.lun})
	r.attention(0x2903)
	protected(false)
}

func TestModeSelectRefuses(t *testing.T) {
	r := newRig(t)
	good := r.control()
	with := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return b
	}
	r.good(r.modeSelect(good))
	r.good(r.do(cdb(0x15, 0x10), nil, 0))
	r.sense(r.do(cdb(0x15, 0, 0, 0, byte(len(good))), good, 0), illegalRequest, 0x2400)    // no PF
	r.sense(r.do(cdb(0x15, 0x11, 0, 0, byte(len(good))), good, 0), illegalRequest, 0x2400) // SP
	r.sense(r.do(cdb(0x15, 0x10, 0, 0, 40), good, 0), illegalRequest, 0x1a00)
	r.sense(r.modeSelect(good[:len(good)-1]), illegalRequest, 0x1a00)
	r.sense(r.modeSelect(good[:3]), illegalRequest, 0x1a00)
	for _, b := range [][]byte{
		with(func(b []byte) { b[4] = 0x0b }),       // a page that is not there
		with(func(b []byte) { b[4+2] ^= 4 }),       // D_SENSE
		with(func(b []byte) { b[4+4] = 8 | 0x10 }), // and more than SWP
	} {
		r.sense(r.modeSelect(b), illegalRequest, 0x2600)
	}
	// With block descriptors: the same is accepted, another length is not.
	ten := bytes.Clone(r.good(r.do(cdb(0x5a, 0x10, 0x0a, 0, 0, 0, 0, 0, 255), nil, 255)))
	ten[0], ten[1], ten[3] = 0, 0, 0
	r.good(r.do(cdb(0x55, 0x10, 0, 0, 0, 0, 0, 0, byte(len(ten))), ten, 0))
	ten[8+14] ^= 1
	r.sense(r.do(cdb(0x55, 0x10, 0, 0, 0, 0, 0, 0, byte(len(ten))), ten, 0), illegalRequest, 0x2600)
	r.good(r.do(rw10(0x2a, 0, 0, 1), fill(512, 1), 0))
}

// TestChangeable: MODE SENSE tells what MODE SELECT can change.
func TestChangeable(t *testing.T) {
	r := newRig(t)
	b := r.good(r.do(cdb(0x1a, 8, 0x7f, 0, 255), nil, 255))
	var pages []byte
	for p := b[4:]; len(p) > 0; p = p[2+p[1]:] {
		pages = append(pages, p[0])
		want := make([]byte, p[1])
		if p[0] == 0x0a {
			want[2] = 8
		}
		if !bytes.Equal(p[2:2+p[1]], want) {
			t.Errorf("page %x can change %x", p[0], p[2:2+p[1]])
		}
	}
	if !bytes.Equal(pages, []byte{0x01, 0x08, 0x0a, 0x1c}) {
		t.Errorf("pages %x", pages)
	}
}

func TestLogSense(t *testing.T) {
	r := newRig(t)
	log := func(page, sub byte, from uint16) []byte {
		c := cdb(0x4d, 0, 0x40|page, sub, 0, byte(from>>8), byte(from), 2, 0)
		return r.good(r.do(c, nil, 512))
	}
	if b := log(0, 0, 0); !bytes.Equal(b, []byte{0, 0, 0, 3, 0, 0x0c, 0x2f}) {
		t.Errorf("supported pages %x", b)
	}
	if b := log(0, 0xff, 0); !bytes.Equal(b, []byte{0x40, 0xff, 0, 8, 0, 0, 0, 0xff, 0x0c, 0, 0x2f, 0}) {
		t.Errorf("supported subpages %x", b)
	}
	r.lu.SetSpace(scsi.Space{Used: 5 << 20, Available: 1 << 40})
	b := log(0x0c, 0, 0)
	if len(b) != 28 || binary.BigEndian.Uint16(b[4:]) != 1 || binary.BigEndian.Uint32(b[8:]) != 1<<20 ||
		binary.BigEndian.Uint16(b[16:]) != 2 || binary.BigEndian.Uint32(b[20:]) != 5 {
		t.Errorf("provisioning %x", b)
	}
	if b := log(0x0c, 0, 2); len(b) != 16 || b[5] != 2 {
		t.Errorf("from parameter 2: %x", b)
	}
	if b := r.good(r.do(cdb(0x12, 1, 0xb2, 0, 64), nil, 64)); b[4] != 11 || b[5] != 0xe4 {
		t.Errorf("VPD page B2h: %x", b) // a threshold set of 2^11 blocks is 1 MiB
	}
	r.sense(r.do(cdb(0x4d, 0, 0x4c, 0, 0, 0, 3, 0, 64), nil, 64), illegalRequest, 0x2400)
	r.sense(r.do(cdb(0x4d, 0, 0x42, 0, 0, 0, 0, 0, 64), nil, 64), illegalRequest, 0x2400)
	r.sense(r.do(cdb(0x4d, 1, 0x40, 0, 0, 0, 0, 0, 64), nil, 64), illegalRequest, 0x2400)
	r.lu.SoftThreshold()
	r.attention(0x3807)
}

// TestUsage: what REPORT SUPPORTED OPERATION CODES says of each command is of the CDB's length, and has the code and the
// service action in it.
func TestUsage(t *testing.T) {
	r := newRig(t)
	all := r.good(r.do(cdb(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 16), nil, 4096))
	for d := all[4:]; len(d) > 0; d = d[8:] {
		how := byte(1)
		if d[5]&1 != 0 {
			how = 2
		}
		one := r.good(r.do(cdb(0xa3, 0x0c, 0x80|how, d[0], d[2], d[3], 0, 0, 1), nil, 256))
		n := int(binary.BigEndian.Uint16(one[2:]))
		if length := map[byte]int{0: 6, 1: 10, 2: 10, 4: 16, 5: 12}[d[0]>>5]; one[1] != 0x83 || n != length ||
			n != int(binary.BigEndian.Uint16(d[6:])) || one[4] != d[0] || how == 2 && one[5]&0x1f != d[3] {
			t.Errorf("%x: %x", d[:8], one)
		}
		if len(one) != 4+n+12 || one[4+n+11] == 0 {
			t.Errorf("%02xh: no recommended timeout in %x", d[0], one)
		}
		w := r.do(cdb(0xa3, 0x0c, 3-how, d[0], d[2], d[3], 0, 0, 1), nil, 256)
		r.sense(w, illegalRequest, 0x2400)
		if w.Sense[15] != 0xc0 || w.Sense[17] != 2 {
			t.Errorf("field pointer in %x", w.Sense)
		}
	}
	if b := r.good(r.do(cdb(0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 64), nil, 64)); len(b) != 16 || b[0] != 0xda || b[3] != 12 {
		t.Errorf("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS %x", b)
	}
	for _, c := range [][]byte{cdb(0x37, 0, 0x0d, 0, 0, 0, 0, 0, 8), cdb(0xb7, 0x0d, 0, 0, 0, 0, 0, 0, 0, 8)} {
		if b := r.good(r.do(c, nil, 8)); b[1] != 0x0d || !bytes.Equal(b[2:], make([]byte, len(b)-2)) {
			t.Errorf("READ DEFECT DATA %x", b)
		}
	}
}
