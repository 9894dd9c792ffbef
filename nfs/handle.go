package nfs

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
)

// A file handle, which clients keep for as long as they like, over restarts and failovers:
//
//	0   4  "PMF" and the version of this layout, 1
//	4  16  the share's id
//	20  8  inode number
//	28  4  generation
//	32  8  the begin of SHA-256 over the cluster's key and bytes 0-31
const handleLen = 40

var handleMagic = [4]byte{'P', 'M', 'F', 1}

// handles makes and reads handles. Its key is the same on every node and for ever.
type handles struct{ key []byte }

func (h handles) sum(b []byte) []byte {
	s := sha256.Sum256(append(append(make([]byte, 0, 128), h.key...), b...))
	return s[:handleLen-32]
}

// make returns the handle of a file.
func (h handles) make(share ids.Volume, r Ref) nfs3.Handle {
	b := make([]byte, 0, handleLen)
	b = append(append(b, handleMagic[:]...), share[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Ino)
	b = binary.BigEndian.AppendUint32(b, r.Gen)
	return append(b, h.sum(b)...)
}

// read returns what a handle names; nfs3.ErrBadHandle for what make has not made.
func (h handles) read(b nfs3.Handle) (ids.Volume, Ref, error) {
	if len(b) != handleLen || [4]byte(b) != handleMagic || subtle.ConstantTimeCompare(b[32:], h.sum(b[:32])) != 1 {
		return ids.Volume{}, Ref{}, nfs3.ErrBadHandle
	}
	return ids.Volume(b[4:20]), Ref{Ino: binary.BigEndian.Uint64(b[20:]), Gen: binary.BigEndian.Uint32(b[28:])}, nil
}
