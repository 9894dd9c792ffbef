// Package outcome is what is remembered of a COMPARE AND WRITE over the death of the leader that carried it out (invariant 18):
// a pure list of records. docs/adr/lock-outcomes.md argues why it is right.
package outcome

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
)

const (
	// Max is how many outcomes are kept of a volume; the oldest go first.
	Max = 256
	// MaxPort is the longest name of an initiator port, in bytes.
	MaxPort = 255
	// MaxLen is the longest range, in bytes: the largest physical block.
	MaxLen = 65536
)

// ErrInvalid is returned for an outcome that nobody can have recorded.
var ErrInvalid = errors.New("outcome: not an outcome of a COMPARE AND WRITE")

// Outcome says that a COMPARE AND WRITE was found to match, and was to be written.
type Outcome struct {
	Port   string // of the initiator
	Off    int64  // bytes
	Len    int64
	Digest string // of both buffers
}

// Of is the outcome of a port's command.
func Of(port string, off int64, compare, write []byte) Outcome {
	h := sha256.New()
	h.Write(compare)
	h.Write(write) // the two are of the same length
	return Outcome{Port: port, Off: off, Len: int64(len(compare)), Digest: hex.EncodeToString(h.Sum(nil))}
}

// Valid returns ErrInvalid for what Of cannot have made.
func (o Outcome) Valid() error {
	if o.Port == "" || len(o.Port) > MaxPort || o.Off < 0 || o.Len <= 0 || o.Len > MaxLen || o.Off%512 != 0 || o.Len%512 != 0 ||
		len(o.Digest) != 2*sha256.Size {
		return ErrInvalid
	}
	return nil
}

// Overlaps tells whether two are of the same bytes.
func (o Outcome) Overlaps(p Outcome) bool { return o.Off < p.Off+p.Len && p.Off < o.Off+o.Len }

// Kept is an outcome with the epoch under which it was recorded.
type Kept struct {
	Outcome
	Epoch uint64
}

// Change adds outcomes, and forgets others: those in drop, whatever overlaps one that is added, and the oldest where there are
// too many. list stays as it was.
func Change(list []Kept, epoch uint64, add, drop []Outcome) []Kept {
	out := slices.DeleteFunc(slices.Clone(list), func(k Kept) bool {
		return slices.Contains(drop, k.Outcome) || slices.ContainsFunc(add, k.Overlaps)
	})
	for _, o := range add {
		out = append(out, Kept{o, epoch})
	}
	return out[max(0, len(out)-Max):]
}
