package replica

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"pmsapp/internal/ids"
)

// The sums are a file of leaves beside the data (invariant 16): a leaf is one sector of 512 bytes, with a checksum of its own,
// and has the CRC-32C of each of 112 blocks of 4096 bytes. docs/FORMATS.md has the drawing.
const (
	sumBlock   = 4096
	sumChunk   = 64 << 10 // the smallest region: a leaf never has a part of one
	chunkSums  = sumChunk / sumBlock
	leafChunks = 7
	leafSums   = leafChunks * chunkSums // 112
	leafSpan   = leafChunks * sumChunk
	leafSize   = 512
	leafHead   = 60
	sumsHead   = blockSize // the file's first block
	pageLeaves = blockSize / leafSize

	// unknownSum says nothing of a block. A block whose sum happens to be this one is not checked.
	unknownSum = 0xFFFFFFFF
	// spoiledBy is what the sum of a block differs by that is known to be bad.
	spoiledBy = 0x5A5A5A5A
)

// leaf is the sums of 112 blocks. 0 is a block of zeros.
type leaf [leafSums]uint32

func leavesOf(size int64) int64 { return (size + leafSpan - 1) / leafSpan }

// sumsSize is the size of the file of sums of a replica of size bytes.
func sumsSize(size int64) int64 {
	return sumsHead + (leavesOf(size)+pageLeaves-1)/pageLeaves*blockSize
}

func leafAt(i int64) int64 { return sumsHead + i*leafSize }

// sumOf is what is kept of a block: its CRC, so changed that it is 0 for zeros. Only the last block of a replica may be shorter
// than 4096 bytes.
func sumOf(b []byte, zeros uint32) uint32 { return crc32.Checksum(b, castagnoli()) ^ zeros }

// zeroSum is the CRC of n zeros, n at most 4096.
func zeroSum(n int64) uint32 { return crc32.Checksum(make([]byte, n), castagnoli()) }

// encodeSumsHead is the first block of the file.
func encodeSumsHead(v ids.Volume) []byte { return seal(magicSums, v[:]) }

func decodeSumsHead(b []byte) (v ids.Volume, err error) {
	c, err := open(magicSums, b)
	if err != nil {
		return v, err
	}
	copy(v[:], c)
	return v, nil
}

func encodeLeaf(b []byte, v ids.Volume, index int64, l *leaf) {
	clear(b[:leafHead])
	copy(b, magicLeaf)
	binary.BigEndian.PutUint32(b[8:], version)
	binary.BigEndian.PutUint32(b[12:], uint32(index))
	copy(b[16:], v[:])
	for i, s := range l {
		binary.BigEndian.PutUint32(b[leafHead+4*i:], s)
	}
	binary.BigEndian.PutUint32(b[leafSize-4:], crc32.Checksum(b[:leafSize-4], castagnoli()))
}

// decodeLeaf reads a leaf. blank says that it was never written; then, and after an error, nothing is known of its blocks.
func decodeLeaf(b []byte, v ids.Volume, index int64, l *leaf) (blank bool, err error) {
	for i := range l {
		l[i] = unknownSum
	}
	switch {
	case allZero(b):
		return true, nil
	case string(b[:8]) != magicLeaf:
		return false, fmt.Errorf("%w: no %q", ErrDamaged, magicLeaf[:7])
	case crc32.Checksum(b[:leafSize-4], castagnoli()) != binary.BigEndian.Uint32(b[leafSize-4:]):
		return false, fmt.Errorf("%w: the checksum of %q differs", ErrDamaged, magicLeaf[:7])
	case binary.BigEndian.Uint32(b[8:]) != version:
		return false, fmt.Errorf("%w: %q has version %d, and this program knows %d", ErrVersion, magicLeaf[:7], binary.BigEndian.Uint32(b[8:]), version)
	case binary.BigEndian.Uint32(b[12:]) != uint32(index) || ids.Volume(b[16:32]) != v:
		return false, fmt.Errorf("%w: sums %d of volume %s are at the place of %d of %s", ErrDamaged,
			binary.BigEndian.Uint32(b[12:]), ids.Volume(b[16:32]), index, v)
	}
	for i := range l {
		l[i] = binary.BigEndian.Uint32(b[leafHead+4*i:])
	}
	return false, nil
}
