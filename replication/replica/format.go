package replica

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"pmsapp/internal/ids"
	"pmsapp/replication/peer"
)

// Every structure but the map (mapblock.go) is a block of 4096 bytes: magic (8), version (4), zeros (4), its content, zeros, and in the last 4 bytes the
// CRC-32C of all before. Numbers are big endian. docs/FORMATS.md has the drawings.
const (
	blockSize = 4096
	headSize  = 16
	version   = 1

	magicPool  = "PMSPOOL\n"
	magicEpoch = "PMSEPOC\n"
	magicSuper = "PMSREPL\n"
	magicMap   = "PMSMARK\n"
	magicNode  = "PMSNODE\n"
	magicSums  = "PMSSUMS\n"
	magicLeaf  = "PMSCRCS\n"
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// seal makes a block of its content.
func seal(magic string, content []byte) []byte {
	if headSize+len(content)+4 > blockSize {
		panic("replica: a structure is longer than a block")
	}
	b := make([]byte, blockSize)
	copy(b, magic)
	binary.BigEndian.PutUint32(b[8:], version)
	copy(b[headSize:], content)
	binary.BigEndian.PutUint32(b[blockSize-4:], crc32.Checksum(b[:blockSize-4], castagnoli()))
	return b
}

// open checks a block and returns its content.
func open(magic string, b []byte) ([]byte, error) {
	switch {
	case len(b) != blockSize || string(b[:8]) != magic:
		return nil, fmt.Errorf("%w: no %q", ErrDamaged, magic[:7])
	case crc32.Checksum(b[:blockSize-4], castagnoli()) != binary.BigEndian.Uint32(b[blockSize-4:]):
		return nil, fmt.Errorf("%w: the checksum of %q differs", ErrDamaged, magic[:7])
	case binary.BigEndian.Uint32(b[8:]) != version:
		return nil, fmt.Errorf("%w: %q has version %d, and this program knows %d", ErrVersion, magic[:7],
			binary.BigEndian.Uint32(b[8:]), version)
	}
	return b[headSize : blockSize-4], nil
}

// poolSuper is a pool's superblock.
type poolSuper struct {
	cluster ids.Cluster
	pool    ids.Pool
}

func (p poolSuper) encode() []byte {
	return seal(magicPool, append(append([]byte{}, p.cluster[:]...), p.pool[:]...))
}

func decodePool(b []byte) (p poolSuper, err error) {
	c, err := open(magicPool, b)
	if err != nil {
		return p, err
	}
	copy(p.cluster[:], c)
	copy(p.pool[:], c[16:])
	if p.cluster.IsZero() || p.pool.IsZero() {
		return p, fmt.Errorf("%w: a superblock without identity", ErrDamaged)
	}
	return p, nil
}

// Written says how often the catalog of a Raft identity had been written, durably (invariant 9). The zero value says nothing.
type Written struct {
	Node  ids.Node
	Count uint64
}

// writtenAt is where it is in a block's content, in what programs that did not know it have left as zeros.
const writtenAt = 3072 - headSize

// with puts it at its place in a content.
func (w Written) with(content []byte) []byte {
	c := make([]byte, writtenAt+24)
	if copy(c, content); len(content) > writtenAt {
		panic("replica: a structure is longer than its place")
	}
	copy(c[writtenAt:], w.Node[:])
	binary.BigEndian.PutUint64(c[writtenAt+16:], w.Count)
	return c
}

func writtenOf(content []byte) (w Written) {
	copy(w.Node[:], content[writtenAt:])
	w.Count = binary.BigEndian.Uint64(content[writtenAt+16:])
	return w
}

// encodeEpochs writes what a pool has accepted: a counter that grows with each write (8), the number of ranges (4), the
// ranges (16 each), and what the catalog was.
func encodeEpochs(count uint64, rs []peer.EpochRange, w Written) []byte {
	c := binary.BigEndian.AppendUint64(nil, count)
	c = binary.BigEndian.AppendUint32(c, uint32(len(rs)))
	for _, r := range rs {
		c = binary.BigEndian.AppendUint64(c, uint64(r.Lo))
		c = binary.BigEndian.AppendUint64(c, uint64(r.Hi))
	}
	return seal(magicEpoch, w.with(c))
}

func decodeEpochs(b []byte) (count uint64, rs []peer.EpochRange, w Written, err error) {
	c, err := open(magicEpoch, b)
	if err != nil {
		return 0, nil, w, err
	}
	n := binary.BigEndian.Uint32(c[8:])
	if n > peer.MaxAccepted {
		return 0, nil, w, fmt.Errorf("%w: %d ranges of epochs", ErrDamaged, n)
	}
	last := peer.Epoch(0)
	for i := range n {
		r := peer.EpochRange{Lo: peer.Epoch(binary.BigEndian.Uint64(c[12+16*i:])), Hi: peer.Epoch(binary.BigEndian.Uint64(c[20+16*i:]))}
		if r.Lo > r.Hi || r.Lo == 0 || i > 0 && r.Lo <= last {
			return 0, nil, w, fmt.Errorf("%w: the ranges of epochs", ErrDamaged)
		}
		last = r.Hi
		rs = append(rs, r)
	}
	return binary.BigEndian.Uint64(c), rs, writtenOf(c), nil
}

// encodeSpec and decodeSpec are a replica's superblock.
func encodeSpec(s peer.Spec) []byte {
	c := append([]byte{}, s.Volume[:]...)
	c = append(c, s.Lineage[:]...)
	c = append(c, s.Pool[:]...)
	c = binary.BigEndian.AppendUint64(c, uint64(s.Size))
	c = binary.BigEndian.AppendUint64(c, uint64(s.Region))
	return seal(magicSuper, c)
}

func decodeSpec(b []byte) (s peer.Spec, err error) {
	c, err := open(magicSuper, b)
	if err != nil {
		return s, err
	}
	copy(s.Volume[:], c)
	copy(s.Lineage[:], c[16:])
	copy(s.Pool[:], c[32:])
	s.Size, s.Region = int64(binary.BigEndian.Uint64(c[48:])), int64(binary.BigEndian.Uint64(c[56:]))
	if err := checkSpec(s); err != nil {
		return s, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return s, nil
}

// maxSize bounds a replica: 64 TiB.
const maxSize = 64 << 40

func checkSpec(s peer.Spec) error {
	if s.Volume.IsZero() || s.Lineage.IsZero() || s.Pool.IsZero() || s.Size <= 0 || s.Size > maxSize || s.Size%512 != 0 ||
		s.Region < 64<<10 || s.Region > 4<<20 || s.Region&(s.Region-1) != 0 {
		return fmt.Errorf("%w: a replica of %d bytes with regions of %d", peer.ErrInvalid, s.Size, s.Region)
	}
	return nil
}

// nodeRecord is what the node keeps on its catalog disk: the highest epoch that it accepted, the pools that have
// recorded that epoch (peer.FencedPool.Reverted), and what the catalog was.
type nodeRecord struct {
	count   uint64 // of writes
	epoch   peer.Epoch
	pools   []ids.Pool
	written Written
}

const maxNodePools = 128

func (r nodeRecord) encode() []byte {
	c := binary.BigEndian.AppendUint64(nil, r.count)
	c = binary.BigEndian.AppendUint64(c, uint64(r.epoch))
	c = binary.BigEndian.AppendUint32(c, uint32(len(r.pools)))
	for _, p := range r.pools {
		c = append(c, p[:]...)
	}
	return seal(magicNode, r.written.with(c))
}

func decodeNode(b []byte) (r nodeRecord, err error) {
	c, err := open(magicNode, b)
	if err != nil {
		return r, err
	}
	n := binary.BigEndian.Uint32(c[16:])
	if n > maxNodePools {
		return r, fmt.Errorf("%w: %d pools", ErrDamaged, n)
	}
	r.count = binary.BigEndian.Uint64(c)
	r.epoch = peer.Epoch(binary.BigEndian.Uint64(c[8:]))
	for i := range n {
		r.pools = append(r.pools, ids.Pool(c[20+16*i:36+16*i]))
	}
	r.written = writtenOf(c)
	return r, nil
}
