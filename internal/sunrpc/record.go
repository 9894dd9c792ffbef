package sunrpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"pmsapp/internal/block"
	"pmsapp/internal/xdr"
)

const (
	lastFragment = 1 << 31
	// MarkLen is the length of a record mark (RFC 5531 11).
	MarkLen = 4
	// peekLen covers a call's header and the arguments of a WRITE before its data.
	peekLen = MaxCallHeader + 128
	// A record may have freeFragments fragments and one more for each fragmentUnit bytes: more are no sender's way to
	// send, but a way to keep a receiver busy.
	freeFragments = 16
	fragmentUnit  = 512
)

// ErrRecord is returned for a record that is too long or has too many fragments. The stream cannot be read on.
var ErrRecord = errors.New("rpc: a record beyond the bounds")

// Record is a received record. Head is its begin; Data, in memory aligned for direct I/O, is what follows it, if the place
// of the data was known.
type Record struct{ Head, Data []byte }

// Decoder reads the record.
func (r *Record) Decoder() *xdr.Decoder { return xdr.NewDecoder(r.Head, r.Data) }

// Free gives its memory back; nothing of it may be used any more.
func (r *Record) Free() {
	block.Put(r.Head)
	block.Put(r.Data)
	*r = Record{}
}

// RecordReader takes records off a stream.
type RecordReader struct {
	r     *bufio.Reader
	limit int
	first uint32 // the mark that Begin has read
}

// Limit changes the limit, for the record after Begin's and those that follow.
func (r *RecordReader) Limit(n int) { r.limit = n }

// NewRecordReader reads records of at most limit bytes.
func NewRecordReader(r io.Reader, limit int) *RecordReader {
	return &RecordReader{r: bufio.NewReaderSize(r, 4096), limit: limit}
}

// Begin waits for a record and returns the length of its first fragment, for which nobody has taken memory yet. Errors:
// io.EOF at the end between records, ErrRecord, or those of the stream.
func (r *RecordReader) Begin() (int, error) {
	var mark [MarkLen]byte
	if _, err := io.ReadFull(r.r, mark[:]); err != nil {
		return 0, err
	}
	r.first = binary.BigEndian.Uint32(mark[:])
	n := int(r.first &^ lastFragment)
	if n > r.limit {
		return 0, fmt.Errorf("%w: %d bytes", ErrRecord, n)
	}
	return n, nil
}

// Rest reads the record that Begin has begun. place is told the begin of a record that came as one fragment, and returns
// where in the record the data begin that should be aligned, or 0. more is asked before memory is taken for each further
// fragment; false ends it with ErrRecord.
func (r *RecordReader) Rest(place func([]byte) int, more func(n int) bool) (Record, error) {
	n := int(r.first &^ lastFragment)
	if r.first&lastFragment == 0 {
		return r.fragments(n, more)
	}
	var rec Record
	cut := 0
	if n > peekLen {
		p, err := r.r.Peek(peekLen)
		if err != nil {
			return rec, short(err)
		}
		cut = place(p)
	}
	if cut <= 0 || cut >= n {
		cut = n
	}
	rec.Head, rec.Data = block.Get(cut), block.Get(n-cut)
	for _, p := range [][]byte{rec.Head, rec.Data} {
		if _, err := io.ReadFull(r.r, p); err != nil {
			rec.Free()
			return rec, short(err)
		}
	}
	return rec, nil
}

// fragments puts a record of several fragments together. It grows with what has come, not with what is announced.
func (r *RecordReader) fragments(n int, more func(int) bool) (_ Record, err error) {
	var all []byte
	defer func() {
		if err != nil {
			block.Put(all)
		}
	}()
	last := false
	for count := 1; ; count++ {
		have := len(all)
		if have+n > r.limit || count > freeFragments+(have+n)/fragmentUnit {
			return Record{}, fmt.Errorf("%w: fragment %d", ErrRecord, count)
		}
		if have+n > cap(all) { // Get rounds up to a power of two, so a record is copied once in all, about
			grown := block.Get(have + n)
			copy(grown, all)
			block.Put(all)
			all = grown
		}
		all = all[:have+n]
		if _, err := io.ReadFull(r.r, all[have:]); err != nil {
			return Record{}, short(err)
		}
		if last {
			return Record{Head: all}, nil
		}
		if n, err = r.Begin(); err != nil {
			return Record{}, short(err)
		}
		if !more(n) {
			return Record{}, fmt.Errorf("%w: no memory for its fragments", ErrRecord)
		}
		last = r.first&lastFragment != 0
	}
}

// short makes the end of the stream within a record an error of its own.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Mark is the record mark of a record that is sent as one fragment of n bytes.
func Mark(n int) uint32 { return lastFragment | uint32(n) }
