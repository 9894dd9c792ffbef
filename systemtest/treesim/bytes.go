package treesim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	// odd is a length that is none of blocks or sectors.
	odd     = 1500
	maxSize = 60000
	// patience bounds the search for one order, of the clock on the wall.
	patience = 20 * time.Second
)

// errTooLong is returned when no order was found in time, and none excluded.
var errTooLong = errors.New("no order was found in time")

// points are where writes, reads and files begin and end; bounds are where pieces of a file do whose bytes go together: a piece is
// between two points, in one sector.
var (
	points = multiples(odd, 4096)
	bounds = multiples(odd, sector)
)

func multiples(a, b int) (all []int) {
	for at := 0; at <= maxSize; at++ {
		if at%a == 0 || at%b == 0 {
			all = append(all, at)
		}
	}
	return all
}

// dataOp is a call about the bytes of a file, and its answer.
type dataOp struct {
	kind      dataKind
	lo, hi    int    // bytes, of a write or a read; hi is the size that a cut sets
	value     uint32 // of a write
	call, ret int64
	maybe     bool // it has its effect or not, each piece for itself
	// of a read:
	got              []uint32 // by piece
	minSize, maxSize int
}

type dataKind uint8

const (
	opWrite dataKind = iota
	opCut
	opRead
)

func (o *dataOp) String() string {
	return fmt.Sprintf("[%d,%d] %s %d to %d value %d maybe %v: %v, size %d to %d", o.call, o.ret, [...]string{"write", "cut", "read"}[o.kind], o.lo, o.hi, o.value, o.maybe, o.got, o.minSize, o.maxSize)
}

// fill makes the bytes of a write.
func fill(n int, value uint32) []byte {
	p := make([]byte, n)
	for at := 0; at < n; at += 4 {
		binary.BigEndian.PutUint32(p[at:], value)
	}
	return p
}

// values reads pieces: one for each bound in [lo, hi). What is behind the end reads as 0.
func values(p []byte, lo, hi int) (all []uint32, err error) {
	first, _ := slices.BinarySearch(bounds, lo)
	for i := first; bounds[i] < hi; i++ {
		from, to := bounds[i]-lo, bounds[i+1]-lo
		if from >= len(p) {
			all = append(all, 0)
			continue
		}
		if to > len(p) {
			return nil, fmt.Errorf("the file ends at %d, which nobody has asked for", lo+len(p))
		}
		v := binary.BigEndian.Uint32(p[from:])
		for at := from; at < to; at += 4 {
			if w := binary.BigEndian.Uint32(p[at:]); w != v {
				return nil, fmt.Errorf("byte %d is of %d, byte %d of %d: no write ends there", lo+from, v, lo+at, w)
			}
		}
		all = append(all, v)
	}
	return all, nil
}

// register is one piece of a file, or its size, to porcupine: write sets it, read finds it.
func register(step func(state int, o *dataOp) (next int, ok bool)) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{0} },
		Step: func(s, in, _ any) []any {
			o := in.(*dataOp)
			next, ok := step(s.(int), o)
			switch {
			case !ok:
				return nil
			case o.maybe && next != s.(int):
				return []any{s, next}
			}
			return []any{next}
		},
	}
	return m.ToModel()
}

// checkBytes tells whether the answers about each piece of a file, and about its size, fit one order of the calls.
func checkBytes(ino uint64, all []*dataOp) error {
	for i := range len(bounds) - 1 {
		at, end := bounds[i], bounds[i+1]
		var ops []porcupine.Operation
		var own []*dataOp
		var found []uint32
		for _, o := range all {
			touches := o.lo <= at && end <= o.hi
			if o.kind == opCut {
				touches = o.hi <= at
			}
			if touches {
				own = append(own, o)
				ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: o, Call: o.call, Return: o.ret})
				if o.kind == opRead {
					first, _ := slices.BinarySearch(bounds, o.lo)
					found = append(found, o.got[i-first])
				}
			}
		}
		if len(found) == 0 {
			continue
		}
		err := verdict(register(func(state int, o *dataOp) (int, bool) {
			switch o.kind {
			case opWrite:
				return int(o.value), true
			case opCut:
				return 0, true
			}
			first, _ := slices.BinarySearch(bounds, o.lo)
			return state, int(o.got[i-first]) == state
		}), ops)
		if err != nil {
			return told(fmt.Errorf("file %d, bytes %d to %d: %w", ino, at, end, err), own)
		}
	}
	var ops []porcupine.Operation
	for _, o := range all {
		ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: o, Call: o.call, Return: o.ret})
	}
	err := verdict(register(func(size int, o *dataOp) (int, bool) {
		switch o.kind {
		case opWrite:
			return max(size, o.hi), true
		case opCut:
			return o.hi, true
		}
		return size, o.minSize <= size && size <= o.maxSize
	}), ops)
	if err != nil {
		return told(fmt.Errorf("file %d, its size: %w", ino, err), all)
	}
	return nil
}

var errNoOrder = errors.New("the answers fit no order of the calls")

func verdict(m porcupine.Model, ops []porcupine.Operation) error {
	switch porcupine.CheckOperationsTimeout(m, ops, patience) {
	case porcupine.Illegal:
		return errNoOrder
	case porcupine.Unknown:
		return errTooLong
	}
	return nil
}

func told(err error, all []*dataOp) error {
	if errors.Is(err, errTooLong) {
		return err
	}
	var b strings.Builder
	for _, o := range all {
		fmt.Fprintln(&b, o)
	}
	return fmt.Errorf("%w:\n%s", err, b.String())
}
