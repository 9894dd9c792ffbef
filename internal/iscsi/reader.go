package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Errors of framing. A connection on which one of them was returned cannot be read any further, except after
// ErrDataDigest.
var (
	// ErrHeaderDigest is returned when the header digest of a PDU is wrong.
	ErrHeaderDigest = errors.New("iscsi: header digest error")
	// ErrDataDigest is returned when the data digest of a PDU is wrong. The whole PDU was read.
	ErrDataDigest = errors.New("iscsi: data digest error")
	// ErrDataLength is returned when a data segment is longer than the reader allows.
	ErrDataLength = errors.New("iscsi: data segment too long")
	// ErrUnread is returned when Next is called before the data segment of the last PDU was read.
	ErrUnread = errors.New("iscsi: the data segment was not read")
)

// Sizes of a Reader's buffer and of what it reads ahead behind a large data segment.
const (
	readBuffer = 64 << 10
	largeData  = 16 << 10
	readShort  = BHSLen + 4 + 256
)

// Reader reads PDUs. Small ones are read many at a time; the data segments of large ones go straight to the caller's
// buffer. It is not safe for concurrent use.
type Reader struct {
	src          io.Reader
	headerDigest bool
	dataDigest   bool
	maxData      int

	buf        []byte // of readBuffer bytes
	start, end int    // buf[start:end] is read but not consumed
	large      bool   // the last data segment was large, so the next one likely is

	bhs     BHS
	ahs     [MaxAHS]byte
	pending int // bytes of the data segment not yet read, without padding and digest
	length  int // of the data segment
	crc     uint32
}

// NewReader returns a Reader without digests that allows data segments of LoginMaxData bytes.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, maxData: LoginMaxData, buf: make([]byte, readBuffer)}
}

// SetDigests says which digests PDUs carry from the next one on.
func (r *Reader) SetDigests(header, data bool) { r.headerDigest, r.dataDigest = header, data }

// SetMaxData says how long a data segment may be from the next PDU on: the MaxRecvDataSegmentLength that this end
// declared.
func (r *Reader) SetMaxData(n int) { r.maxData = n }

// Next reads the headers of the next PDU. The BHS and the AHS are valid until the next call of Next. If DataLen is not 0,
// the data segment must be taken by ReadData or Discard before Next is called again.
//
// It returns io.EOF if the connection ended between two PDUs, io.ErrUnexpectedEOF if it ended within one,
// ErrHeaderDigest, or ErrDataLength.
func (r *Reader) Next() (*BHS, error) {
	if r.pending > 0 {
		return nil, ErrUnread
	}
	if err := r.fill(BHSLen); err != nil {
		return nil, err
	}
	copy(r.bhs[:], r.buf[r.start:])
	n := BHSLen + r.bhs.AHSLen()
	if r.headerDigest {
		n += 4
	}
	if err := r.fill(n); err != nil {
		return nil, midway(err)
	}
	head := r.buf[r.start : r.start+n]
	r.start += n
	if r.headerDigest {
		n -= 4
		if crc32.Checksum(head[:n], castagnoli) != binary.LittleEndian.Uint32(head[n:]) {
			return nil, ErrHeaderDigest
		}
	}
	copy(r.ahs[:], head[BHSLen:n])
	r.length = r.bhs.DataLen()
	if r.length > r.maxData {
		return nil, fmt.Errorf("%s with %d bytes, at most %d: %w", r.bhs.Opcode(), r.length, r.maxData, ErrDataLength)
	}
	r.pending, r.crc = r.length, 0
	r.large = r.length >= largeData
	return &r.bhs, nil
}

// AHS returns the additional header segments of the PDU, valid until the next call of Next.
func (r *Reader) AHS() []byte { return r.ahs[:r.bhs.AHSLen()] }

// Pending is the number of bytes of the data segment that were not read yet.
func (r *Reader) Pending() int { return r.pending }

// Buffered is the number of bytes that were read from the connection and not consumed: if it is 0, the next call of Next
// will likely wait.
func (r *Reader) Buffered() int { return r.end - r.start }

// ReadData reads the next len(dst) bytes of the data segment, which may be taken in several parts; dst must not be longer
// than Pending. With the last byte the padding and the digest are read, and ErrDataDigest is returned if the digest is
// wrong: so nothing of the data may be used before the last part was read.
func (r *Reader) ReadData(dst []byte) error {
	if len(dst) > r.pending {
		return ErrDataLength
	}
	if len(dst) == 0 {
		return nil
	}
	n := copy(dst, r.buf[r.start:r.end])
	r.start += n
	if n < len(dst) {
		if _, err := io.ReadFull(r.src, dst[n:]); err != nil {
			return midway(err)
		}
	}
	if r.dataDigest {
		r.crc = crc32.Update(r.crc, castagnoli, dst)
	}
	r.pending -= len(dst)
	if r.pending > 0 {
		return nil
	}
	return r.finish()
}

// Discard reads the rest of the data segment and drops it. The digest is not verified.
func (r *Reader) Discard() error {
	if r.pending == 0 {
		return nil
	}
	for r.pending > 0 {
		if r.start == r.end {
			if err := r.fill(1); err != nil {
				return midway(err)
			}
		}
		n := min(r.pending, r.end-r.start)
		r.start += n
		r.pending -= n
	}
	if err := r.finish(); !errors.Is(err, ErrDataDigest) {
		return err
	}
	return nil
}

// Skip reads the rest of the data segment and drops it, and verifies the digest of the whole segment, as ReadData does.
func (r *Reader) Skip() error {
	if r.pending == 0 {
		return nil
	}
	for r.pending > 0 {
		if r.start == r.end {
			if err := r.fill(1); err != nil {
				return midway(err)
			}
		}
		n := min(r.pending, r.end-r.start)
		if r.dataDigest {
			r.crc = crc32.Update(r.crc, castagnoli, r.buf[r.start:r.start+n])
		}
		r.start += n
		r.pending -= n
	}
	return r.finish()
}

// finish reads padding and digest.
func (r *Reader) finish() error {
	pad := pad4(r.length) - r.length
	n := pad
	if r.dataDigest {
		n += 4
	}
	if n == 0 {
		return nil
	}
	if err := r.fill(n); err != nil {
		return midway(err)
	}
	tail := r.buf[r.start : r.start+n]
	r.start += n
	if r.dataDigest && crc32.Update(r.crc, castagnoli, tail[:pad]) != binary.LittleEndian.Uint32(tail[pad:]) {
		return ErrDataDigest
	}
	return nil
}

// fill makes at least n bytes available in buf; n is far below len(buf).
func (r *Reader) fill(n int) error {
	if r.end-r.start >= n {
		return nil
	}
	if r.start == r.end {
		r.start, r.end = 0, 0
	} else if r.start+n > len(r.buf) {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	limit := len(r.buf)
	if r.large { // leave the data of the next PDU to ReadData, which need not copy it
		limit = min(limit, r.start+max(n, readShort))
	}
	m, err := io.ReadAtLeast(r.src, r.buf[r.end:limit], n-(r.end-r.start))
	r.end += m
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		if r.end == r.start {
			return io.EOF
		}
		return io.ErrUnexpectedEOF
	}
	return err
}

func midway(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
