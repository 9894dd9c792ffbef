package powerdisk

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// The kernel's protocol, of include/uapi/linux/fuse.h: as much as one file needs. Everything else is answered ENOSYS, poll above all,
// which the kernel then no longer asks.
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opFsync       = 20
	opFlush       = 25
	opInit        = 26
	opInterrupt   = 36
	opDestroy     = 38
	opBatchForget = 42
	opFallocate   = 43

	inHeader  = 40
	outHeader = 16
	writeIn   = 40
	maxWrite  = 1 << 20

	initAsyncDIO  = 1 << 15
	initBigWrites = 1 << 5
	initMaxPages  = 1 << 22

	openDirectIO = 1 // no page cache between the loop device and the disk

	rootNode = 1
	fileNode = 2
	fileName = "disk"
)

var le = binary.LittleEndian

// request is one of the kernel's.
type request struct {
	op     uint32
	unique uint64
	node   uint64
	body   []byte
}

func parseRequest(b []byte) (request, error) {
	if len(b) < inHeader {
		return request{}, fmt.Errorf("a request of %d bytes", len(b))
	}
	return request{op: le.Uint32(b[4:]), unique: le.Uint64(b[8:]), node: le.Uint64(b[16:]), body: b[inHeader:]}, nil
}

// span is what a read, write, fallocate or fsync is about: the handle, and where.
func (r request) span() (handle uint64, off, n int64) {
	handle = le.Uint64(r.body)
	switch r.op {
	case opRead, opWrite:
		return handle, int64(le.Uint64(r.body[8:])), int64(le.Uint32(r.body[16:]))
	case opFallocate:
		return handle, int64(le.Uint64(r.body[8:])), int64(le.Uint64(r.body[16:]))
	}
	return handle, 0, 0
}

// reply makes the bytes of an answer.
func reply(unique uint64, body []byte, err error) []byte {
	out := make([]byte, outHeader, outHeader+len(body))
	if err != nil {
		errno, ok := err.(syscall.Errno)
		if !ok {
			errno = syscall.EIO
		}
		le.PutUint32(out[4:], uint32(-int32(errno)))
		body = nil
	}
	le.PutUint64(out[8:], unique)
	out = append(out, body...)
	le.PutUint32(out, uint32(len(out)))
	return out
}

// initReply answers FUSE_INIT with the protocol 7.31.
func initReply(in []byte) []byte {
	out := make([]byte, 64)
	le.PutUint32(out, 7)
	le.PutUint32(out[4:], 31)
	le.PutUint32(out[8:], le.Uint32(in[8:])) // readahead
	le.PutUint32(out[12:], le.Uint32(in[12:])&(initAsyncDIO|initBigWrites|initMaxPages))
	le.PutUint16(out[16:], 64) // requests in the background
	le.PutUint16(out[18:], 48)
	le.PutUint32(out[20:], maxWrite)
	le.PutUint32(out[24:], 1)
	le.PutUint16(out[28:], maxWrite/pageSize)
	return out
}

func attributes(node uint64, size int64) []byte {
	b := make([]byte, 88)
	le.PutUint64(b, node)
	mode := uint32(unix.S_IFREG | 0o600)
	if node != fileNode {
		mode, size = unix.S_IFDIR|0o700, 0
	}
	le.PutUint64(b[8:], uint64(size))
	le.PutUint64(b[16:], uint64(size/sectorSize))
	le.PutUint32(b[60:], mode)
	le.PutUint32(b[64:], 1)
	le.PutUint32(b[80:], pageSize)
	return b
}
