package iscsi

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"syscall"
	"unsafe"
)

// SmallData is the length up to which Write copies a data segment.
const SmallData = 1024

const (
	writeBuffer  = 32 << 10
	maxSegments  = 256
	headRoom     = BHSLen + MaxAHS + 4 + SmallData + 4 + 4
	maxUnflushed = 1 << 20
)

// Writer sends PDUs. Write collects them, Flush sends what was collected with one system call where the connection can
// (net.TCPConn). It is not safe for concurrent use.
type Writer struct {
	dst          io.Writer
	headerDigest bool
	dataDigest   bool

	// buf has headers, small data, padding and digests. segments are parts of buf, and large data of callers, in the
	// order in which they are sent; buf[mark:used] is not in segments yet.
	buf        []byte
	mark, used int
	segments   net.Buffers
	backing    [maxSegments]([]byte)
	bytes      int
	err        error

	try   func(uintptr) bool // w.tryOnce, made once
	iov   [tryMost]syscall.Iovec
	tried syscall.Errno
	took  int
}

// tryMost bounds what TryFlush sends at once, in segments.
const tryMost = 16

// NewWriter returns a Writer without digests.
func NewWriter(dst io.Writer) *Writer {
	w := &Writer{dst: dst, buf: make([]byte, writeBuffer)}
	w.segments = w.backing[:0]
	return w
}

// SetDigests says which digests PDUs carry from the next one on.
func (w *Writer) SetDigests(header, data bool) { w.headerDigest, w.dataDigest = header, data }

// Write collects a PDU. It sets the length fields of h. h and ahs may be used anew when it returns, and data too if it has
// at most SmallData bytes; longer data must stay as it is until Flush has returned. len(ahs) must be a multiple of 4.
// When much was collected Write flushes by itself. After an error every later call returns the same error.
func (w *Writer) Write(h *BHS, ahs, data []byte) error {
	if w.err != nil {
		return w.err
	}
	if len(ahs) > MaxAHS || len(ahs)%4 != 0 {
		return fmt.Errorf("%d bytes: %w", len(ahs), ErrAHS)
	}
	if len(data) > MaxDataSegment {
		return fmt.Errorf("%d bytes: %w", len(data), ErrDataLength)
	}
	if w.used+headRoom > len(w.buf) || len(w.segments)+3 > maxSegments || w.bytes > maxUnflushed {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	h.setLengths(len(ahs), len(data))
	from := w.used
	w.put(h[:])
	w.put(ahs)
	if w.headerDigest {
		w.putDigest(crc32.Checksum(w.buf[from:w.used], castagnoli))
	}
	if len(data) == 0 {
		return nil
	}
	if len(data) <= SmallData {
		w.put(data)
	} else {
		w.cut()
		w.segments = append(w.segments, data)
		w.bytes += len(data)
	}
	from = w.used
	w.used += copy(w.buf[w.used:], padding[:pad4(len(data))-len(data)])
	if w.dataDigest {
		crc := crc32.Checksum(data, castagnoli)
		w.putDigest(crc32.Update(crc, castagnoli, w.buf[from:w.used]))
	}
	return nil
}

// Buffered is the number of bytes that wait for Flush.
func (w *Writer) Buffered() int { return w.bytes + w.used - w.mark }

// Flush sends what was collected. Afterwards no data of a caller is referred to any more.
func (w *Writer) Flush() error {
	if w.err != nil {
		return w.err
	}
	w.cut()
	switch len(w.segments) {
	case 0:
		return nil
	case 1:
		_, w.err = w.dst.Write(w.segments[0])
	default:
		_, w.err = w.segments.WriteTo(w.dst)
	}
	w.reset()
	return w.err
}

// TryFlush sends as much of what was collected as the connection takes without waiting. Where that is not all it returns false; the rest
// is for Flush, and until then data of callers is still referred to.
func (w *Writer) TryFlush(c syscall.RawConn) (done bool, err error) {
	if w.err != nil {
		return false, w.err
	}
	w.cut()
	if w.try == nil {
		w.try = w.tryOnce
	}
	if len(w.segments) > 0 && len(w.segments) <= tryMost {
		w.took, w.tried = 0, 0
		if err := c.Write(w.try); err != nil { // its deadline is over, or it is closed: Flush will say
			return false, nil
		}
		if w.tried != 0 && w.tried != syscall.EAGAIN && w.tried != syscall.EINTR {
			w.err = w.tried
			return false, w.err
		}
		for n := w.took; len(w.segments) > 0; w.segments = w.segments[1:] {
			if k := len(w.segments[0]); n < k {
				w.segments[0] = w.segments[0][n:]
				return false, nil
			}
			n -= len(w.segments[0])
		}
	}
	if len(w.segments) > 0 {
		return false, nil
	}
	w.reset()
	return true, nil
}

// tryOnce is one system call on a descriptor that does not block.
func (w *Writer) tryOnce(fd uintptr) bool {
	for i, s := range w.segments {
		w.iov[i].Base = unsafe.SliceData(s)
		w.iov[i].SetLen(len(s))
	}
	// The scheduler need not know of it.
	n, _, e := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov)), uintptr(len(w.segments)))
	if e == 0 {
		w.took = int(n)
	}
	w.tried = e
	clear(w.iov[:len(w.segments)])
	return true
}

func (w *Writer) reset() {
	clear(w.backing[:maxSegments-cap(w.segments)+len(w.segments)]) // what is sent is cut off at the front
	w.segments = w.backing[:0]
	w.mark, w.used, w.bytes = 0, 0, 0
}

func (w *Writer) put(b []byte) { w.used += copy(w.buf[w.used:], b) }

func (w *Writer) putDigest(crc uint32) {
	binary.LittleEndian.PutUint32(w.buf[w.used:], crc)
	w.used += 4
}

// cut ends the current part of buf and makes it a segment.
func (w *Writer) cut() {
	if w.used > w.mark {
		w.segments = append(w.segments, w.buf[w.mark:w.used])
		w.bytes += w.used - w.mark
		w.mark = w.used
	}
}

const padding = "\x00\x00\x00"
