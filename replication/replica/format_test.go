package replica

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

func testSpec() peer.Spec {
	return peer.Spec{Volume: ids.Volume{1}, Lineage: ids.Lineage{2}, Pool: ids.Pool{3}, Size: 0x1234 << 20, Region: 1 << 20}
}

// TestFormats holds docs/FORMATS.md against the code, byte by byte. The bytes are written out here by hand.
func TestFormats(t *testing.T) {
	hexa := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	id := func(n byte) string { return hex.EncodeToString([]byte{n}) + "000000000000000000000000000000" }
	check := func(name string, b []byte, sum int, want map[int]string) {
		t.Helper()
		w := make([]byte, len(b))
		for at, x := range want {
			copy(w[at:], hexa(x))
		}
		for at := 0; at < len(w); at += sum {
			binary.BigEndian.PutUint32(w[at+sum-4:], crc32.Checksum(w[at:at+sum-4], crc32.MakeTable(crc32.Castagnoli)))
		}
		for i := range b {
			if b[i] != w[i] {
				t.Fatalf("%s: byte %d is %02x, and the drawing says %02x", name, i, b[i], w[i])
			}
		}
	}
	check("pool", poolSuper{ids.Cluster{1}, ids.Pool{2}}.encode(), 4096, map[int]string{0: "504d53504f4f4c0a00000001", 16: id(1), 32: id(2)})
	check("replica", encodeSpec(testSpec()), 4096, map[int]string{0: "504d535245504c0a00000001", 16: id(1), 32: id(2), 48: id(3),
		64: "0000000123400000", 72: "0000000000100000"})
	check("epochs", encodeEpochs(5, []peer.EpochRange{{Lo: 1, Hi: 3}, {Lo: 7, Hi: 8}}, Written{ids.Node{9}, 6}), 4096, map[int]string{0: "504d5345504f430a00000001",
		16: "0000000000000005", 24: "00000002", 28: "00000000000000010000000000000003", 44: "00000000000000070000000000000008", 3072: id(9), 3088: "0000000000000006"})
	check("node", nodeRecord{5, 8, []ids.Pool{{4}}, Written{ids.Node{9}, 6}}.encode(), 4096, map[int]string{0: "504d534e4f44450a00000001",
		16: "0000000000000005", 24: "0000000000000008", 32: "00000001", 36: id(4), 3072: id(9), 3088: "0000000000000006"})
	seqs := make([]peer.Seq, perBlock)
	seqs[0], seqs[52], seqs[53], seqs[423] = 4, 5, 6, 7
	b := make([]byte, blockSize)
	encodeMap(b, 9, mapState{count: 3, prev: 2, high: 8, durable: 6, seqs: seqs, gens: [2]uint64{17, 18},
		missed: missedBits{{0: 1 << 52}, {7: 3}}})
	want := map[int]string{}
	for s, own := range map[int]map[int]string{0: {84: "0000000000000004", 68: "0010000000000000", 500: "0000000000000005"}, 1: {84: "0000000000000006"}, 7: {76: "0000000000000003", 500: "0000000000000007"}, 2: {}, 3: {}, 4: {}, 5: {}, 6: {}} {
		want[512*s] = "504d534d41524b0a00000002" + "00000009" + "000000" + hex.EncodeToString([]byte{byte(s)}) +
			"0000000000000003" + "0000000000000002" + "0000000000000008" + "0000000000000006" + "0000000000000011" + "0000000000000012"
		for at, x := range own {
			want[512*s+at] = x
		}
	}
	check("map", b, 512, want)
	check("sums", encodeSumsHead(ids.Volume{7}), 4096, map[int]string{0: "504d5353554d530a00000001", 16: id(7)})
	l := &leaf{0: 0x01020304, 111: 0x0a0b0c0d}
	b = make([]byte, leafSize)
	encodeLeaf(b, ids.Volume{7}, 0x0102, l)
	check("leaf", b, 512, map[int]string{0: "504d53435243530a00000001" + "00000102", 16: id(7), 60: "01020304", 504: "0a0b0c0d"})
	if leafAt(3) != 4096+1536 || sumsSize(448<<10) != 8192 || sumsSize(8*448<<10+512) != 12288 || zeroSum(4096) != 0x98f94189 {
		t.Fatal("the places of the sums")
	}
	others := othersRecord{count: 7, birth: ids.ID{9}, others: []otherEntry{
		{Other: peer.Other{ID: peer.ReplicaID{Node: ids.Node{1}, Pool: ids.Pool{2}, Birth: ids.ID{3}}}},
		{Other: peer.Other{ID: peer.ReplicaID{Node: ids.Node{4}, Pool: ids.Pool{5}, Birth: ids.ID{6}}, Absent: true, All: true, Epoch: 10, Seq: 11}, slot: 1, gen: 12},
	}}
	check("others", others.encode()[:512], 512, map[int]string{0: "504d534f5448520a00000001" + "00000002" + "0000000000000007", 24: id(9),
		40: id(1), 56: id(2), 72: id(3), 120: id(4), 136: id(5), 152: id(6), 168: "010101", 176: "000000000000000a", 184: "000000000000000b", 192: "000000000000000c"})
	if !allZero(others.encode()[512:]) {
		t.Fatal("the record of the others is longer than a sector")
	}
	if perBlock != 424 || slotAt(3, 4) != 3*8192 || slotAt(3, 5) != 3*8192+4096 || mapSize(peer.Spec{Size: 425 << 20, Region: 1 << 20}) != 16384+8192 {
		t.Fatal("the map's places")
	}
}

// reseal makes the checksums of what a fuzzer has made, so that it gets past them.
func reseal(b []byte, magic string, unit int) []byte {
	c := make([]byte, blockSize)
	copy(c, b)
	for at := 0; at < blockSize; at += unit {
		copy(c[at:], magic)
		v := uint32(version)
		if magic == magicMap {
			v = mapVersion
		}
		binary.BigEndian.PutUint32(c[at+8:], v)
		binary.BigEndian.PutUint32(c[at+unit-4:], crc32.Checksum(c[at:at+unit-4], castagnoli()))
	}
	return c
}

// fuzzBlock has a decoder read anything, and what it accepts must be written as it was.
func fuzzBlock(f *testing.F, magic string, again func([]byte) ([]byte, error), seeds ...[]byte) {
	for _, s := range seeds {
		f.Add(s)
		f.Add(s[:100])
		bad := bytes.Clone(s)
		bad[70] ^= 1
		f.Add(bad)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, raw := range [][]byte{b, reseal(b, magic, blockSize)} {
			out, err := again(raw)
			switch {
			case err == nil && out != nil:
				// The same up to what is not looked at: what it says is the same.
				if twice, err := again(out); err != nil || !bytes.Equal(twice, out) {
					t.Fatalf("%v: it reads otherwise than it was written", err)
				}
			case err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion):
				t.Fatal(err)
			}
		}
	})
}

func FuzzPoolSuper(f *testing.F) {
	fuzzBlock(f, magicPool, func(b []byte) ([]byte, error) {
		p, err := decodePool(b)
		return p.encode(), err
	}, poolSuper{ids.Cluster{1}, ids.Pool{2}}.encode())
}

func FuzzReplicaSuper(f *testing.F) {
	fuzzBlock(f, magicSuper, func(b []byte) ([]byte, error) {
		s, err := decodeSpec(b)
		if err == nil && checkSpec(s) != nil {
			return nil, checkSpec(s)
		}
		return encodeSpec(s), err
	}, encodeSpec(testSpec()))
}

func FuzzEpochs(f *testing.F) {
	fuzzBlock(f, magicEpoch, func(b []byte) ([]byte, error) {
		n, rs, w, err := decodeEpochs(b)
		if len(rs) > peer.MaxAccepted {
			return nil, errors.New("too many")
		}
		return encodeEpochs(n, rs, w), err
	}, encodeEpochs(3, []peer.EpochRange{{Lo: 1, Hi: 4}, {Lo: 6, Hi: 9}}, Written{ids.Node{9}, 6}), encodeEpochs(1, nil, Written{}))
}

func FuzzNodeRecord(f *testing.F) {
	fuzzBlock(f, magicNode, func(b []byte) ([]byte, error) {
		r, err := decodeNode(b)
		return r.encode(), err
	}, nodeRecord{3, 7, []ids.Pool{{1}, {2}}, Written{ids.Node{9}, 6}}.encode(), nodeRecord{count: 1}.encode())
}

func FuzzSumsHead(f *testing.F) {
	fuzzBlock(f, magicSums, func(b []byte) ([]byte, error) {
		v, err := decodeSumsHead(b)
		return encodeSumsHead(v), err
	}, encodeSumsHead(ids.Volume{1}))
}

func FuzzLeaf(f *testing.F) {
	l := leaf{1: 1, 2: unknownSum, 111: 5}
	b := make([]byte, leafSize)
	encodeLeaf(b, ids.Volume{1}, 3, &l)
	f.Add(b)
	f.Add(make([]byte, leafSize))
	f.Add(b[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		raw := make([]byte, leafSize)
		copy(raw, b)
		sealed := bytes.Clone(raw)
		copy(sealed, magicLeaf)
		binary.BigEndian.PutUint32(sealed[leafSize-4:], crc32.Checksum(sealed[:leafSize-4], castagnoli()))
		for _, raw := range [][]byte{raw, sealed} {
			var l, again leaf
			blank, err := decodeLeaf(raw, ids.Volume{1}, 3, &l)
			if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			if blank || err != nil {
				for _, s := range l {
					if s != unknownSum {
						t.Fatal("something is known of a leaf that cannot be read")
					}
				}
				continue
			}
			out := make([]byte, leafSize)
			encodeLeaf(out, ids.Volume{1}, 3, &l)
			if _, err := decodeLeaf(out, ids.Volume{1}, 3, &again); err != nil || again != l {
				t.Fatal("it reads otherwise than it was written:", err)
			}
		}
	})
}

func FuzzOthers(f *testing.F) {
	o := othersRecord{count: 7, birth: ids.ID{9}, others: []otherEntry{
		{Other: peer.Other{ID: peer.ReplicaID{Node: ids.Node{1}, Pool: ids.Pool{2}, Birth: ids.ID{3}}}},
		{Other: peer.Other{ID: peer.ReplicaID{Birth: ids.ID{6}}, Absent: true, All: true, Epoch: 10, Seq: 11}, slot: 1, gen: 12},
	}}
	f.Add(o.encode()[:mapSector])
	f.Add(o.encode()[:100])
	o.others = nil
	f.Add(o.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, raw := range [][]byte{b, reseal(b, magicOthers, mapSector)} {
			o, err := decodeOthers(raw)
			if err != nil {
				if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
					t.Fatal(err)
				}
				continue
			}
			if again, err := decodeOthers(o.encode()); err != nil || !cmp.Equal(again.list(), o.list()) || again.birth != o.birth {
				t.Fatal("it reads otherwise than it was written:", err)
			}
		}
	})
}

func FuzzMap(f *testing.F) {
	a, b := make([]byte, blockSize), make([]byte, blockSize)
	seqs := make([]peer.Seq, perBlock)
	encodeMap(a, 0, mapState{count: 1, high: 2, seqs: seqs})
	seqs[3] = 7
	encodeMap(b, 0, mapState{count: 2, prev: 1, high: 7, durable: 6, seqs: seqs})
	f.Add(b, a)
	f.Add(make([]byte, blockSize), a)
	f.Add(append(bytes.Clone(b[:1024]), make([]byte, blockSize-1024)...), a)
	f.Fuzz(func(t *testing.T, even, odd []byte) {
		pad := func(b []byte) []byte {
			return append(bytes.Clone(b[:min(len(b), blockSize)]), make([]byte, blockSize-min(len(b), blockSize))...)
		}
		for _, slots := range [][2][]byte{{pad(even), pad(odd)}, {reseal(even, magicMap, mapSector), reseal(odd, magicMap, mapSector)}} {
			m := newMarks(20)
			err := m.load(0, slots)
			if err != nil {
				if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
					t.Fatal(err)
				}
				continue
			}
			// What was read is written, and reads the same.
			before, high := m.list(), m.blocks[0].high
			if m.active != len(before) || m.active > 20 {
				t.Fatal("active regions: ", m.active)
			}
			m.change(0)
			w := m.take()[0]
			slots[w.at/blockSize] = w.bytes
			m = newMarks(20)
			if err := m.load(0, slots); err != nil || !cmp.Equal(m.list(), before) || m.blocks[0].high != high {
				t.Fatal("it reads otherwise than it was written:", err)
			}
		}
	})
}

// TestMapSlots: a torn write is the state before it, whatever was torn before; anything else that is not whole is damage.
func TestMapSlots(t *testing.T) {
	write := func(m *marks, slots *[2][]byte, sectors int, r uint32, seq peer.Seq) {
		m.begin(r, r, seq, seq-1)
		m.end(r, r)
		for _, w := range m.take() {
			copy(slots[w.at/blockSize][:sectors*mapSector], w.bytes)
		}
	}
	load := func(slots [2][]byte) (*marks, error) {
		m := newMarks(perBlock)
		return m, m.load(0, slots)
	}
	fresh := func() (*marks, *[2][]byte) {
		slots := &[2][]byte{make([]byte, blockSize), make([]byte, blockSize)}
		m := newMarks(perBlock)
		write(m, slots, 8, 1, 5)
		write(m, slots, 8, 400, 6)
		return m, slots
	}
	_, slots := fresh()
	for first := range 8 { // two torn attempts, one after another, in the same slot
		for second := range 8 {
			s := [2][]byte{bytes.Clone(slots[0]), bytes.Clone(slots[1])}
			m, err := load(s)
			if err != nil {
				t.Fatal(err)
			}
			write(m, &s, first, 2, 9)
			if m, err = load(s); err != nil || len(m.list()) != 2 {
				t.Fatal(first, err)
			}
			write(m, &s, second, 3, 7)
			if m, err = load(s); err != nil || len(m.list()) != 2 {
				t.Fatal(first, second, err, m.list())
			}
			write(m, &s, 8, 4, 11)
			write(m, &s, 8, 5, 12)
			if m, err = load(s); err != nil || len(m.list()) != 4 {
				t.Fatal(first, second, err)
			}
		}
	}
	for slot := range 2 { // a bit that flips is damage wherever it is, also in the older slot
		for at := 0; at < blockSize; at += 37 {
			s := [2][]byte{bytes.Clone(slots[0]), bytes.Clone(slots[1])}
			s[slot][at] ^= 0x10
			if _, err := load(s); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatal(slot, at, err)
			}
		}
	}
	m, s := fresh()
	older := bytes.Clone(s[1])
	write(m, s, 8, 7, 8)
	write(m, s, 8, 8, 9)
	copy(s[1], older) // a write that the disk has lost, before another
	if _, err := load(*s); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	s[0], s[1] = s[1], s[0]
	if _, err := load(*s); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

// TestMarksWhileWriting: what is in kept is on the disk whatever becomes of the write under way.
func TestMarksWhileWriting(t *testing.T) {
	m := newMarks(perBlock)
	if !m.begin(1, 1, 9, 8) {
		t.Fatal("a clean region needs a flush")
	}
	m.wrote(m.take())
	m.end(1, 1)
	if m.begin(1, 1, 9, 8) {
		t.Fatal("a hot region needs none")
	}
	m.end(1, 1)
	if !m.begin(1, 1, 10, 8) {
		t.Fatal("a higher Seq is recorded")
	}
	m.wrote(m.take())
	m.end(1, 1)
	// Another region's mark is written, and holds region 1 as active; meanwhile that is cleared.
	m.begin(2, 2, 11, 8)
	under := m.take()
	if !m.clear([]peer.RegionSeq{{Region: 1, Seq: 10}}, 8) {
		t.Fatal("not cleared")
	}
	if !m.begin(1, 1, 7, 0) { // a lower Seq than the one that is on the disk
		t.Fatal("a region that is being cleared needs a flush")
	}
	m.wrote(under)
	under = m.take()
	if !m.clear(nil, 0) && !m.begin(1, 1, 8, 0) {
		t.Fatal("marked with 7, and 8 is higher")
	}
	m.wrote(under)
	if seq, _ := m.highest(); seq != 11 {
		t.Fatal(seq)
	}
	// The same with the clear in the write under way.
	m.end(1, 1)
	m.end(1, 1)
	m.wrote(m.take())
	m.clear([]peer.RegionSeq{{Region: 1, Seq: 99}}, 8)
	under = m.take()
	if !m.begin(1, 1, 8, 0) {
		t.Fatal("its mark is being taken away")
	}
	m.wrote(under)
	if !m.begin(1, 1, 8, 0) {
		t.Fatal("its mark was taken away")
	}
}
