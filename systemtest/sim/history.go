package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"pmsapp/replication/peer"
)

// blockSize is the logical block: what a write changes whole or not at all, and what linearizability is judged by.
const blockSize = 512

type opKind uint8

const (
	opRead opKind = iota
	opWrite
	opZero
	opFlush
	opLoss // what was not flushed may be lost: it comes from the cluster
	opSwap // an update: it tells what was there and leaves its value, or refuses, and then it was a read
)

func (k opKind) String() string {
	return [...]string{"read", "write", "zero", "flush", "loss", "swap"}[k]
}

// op is one command of a client. Times are numbers of events, so that none are equal.
type op struct {
	id       uint32 // the value that a write leaves in each of its blocks; unique in a run
	client   int
	kind     opKind
	vol      int
	block, n int // range of blocks
	fua      bool
	call     int64
	ret      int64    // 0: not answered with success
	got      []uint32 // read, swap: the values, by block
	at       time.Duration

	// Known to the simulation alone.
	node  int        // that submitted it to a mirror
	epoch peer.Epoch // of that mirror; 0: it was not submitted
	order int64      // when it was submitted
	// settled is a moment after which it changes no byte that anybody sees (invariants 4, 7, 8); 0 if there was none.
	settled int64
	late    bool
}

// end is the moment before which it took effect, if at all; 0 if there is none.
func (o *op) end() int64 {
	if o.ret == 0 || o.settled != 0 && o.settled < o.ret {
		return o.settled
	}
	return o.ret
}

// unknown says that it changed the bytes or did not, each block for itself.
func (o *op) unknown() bool { return o.ret == 0 }

// tells says that it was answered with what it found.
func (o *op) tells() bool { return (o.kind == opRead || o.kind == opSwap) && !o.unknown() }

func (o *op) String() string {
	return fmt.Sprintf("%s #%d of client %d, volume %d, blocks %d+%d", o.kind, o.id, o.client, o.vol, o.block, o.n)
}

// history is what the clients saw.
type history struct {
	ops   []*op
	clock int64
}

func (h *history) tick() int64 { h.clock++; return h.clock }

// fillBlock makes the bytes of a block: its number and a value in every 16 bytes, so that a torn or misplaced one is seen.
func fillBlock(b []byte, block int, value uint32) {
	if value == 0 {
		clear(b)
		return
	}
	binary.LittleEndian.PutUint64(b, uint64(block)+0x5151_0000_0000)
	binary.LittleEndian.PutUint64(b[8:], uint64(value))
	for n := 16; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// readBlock is the value of a block's bytes; an error if they are no block that was ever written there.
func readBlock(b []byte, block int) (uint32, error) {
	first, value := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	if first == 0 && value == 0 {
		for _, c := range b {
			if c != 0 {
				return 0, fmt.Errorf("block %d is torn: it begins with zeros", block)
			}
		}
		return 0, nil
	}
	if first != uint64(block)+0x5151_0000_0000 {
		return 0, fmt.Errorf("block %d holds the bytes of another place: %x %x", block, first, value)
	}
	for i := 16; i < len(b); i += 16 {
		if binary.LittleEndian.Uint64(b[i:]) != first || binary.LittleEndian.Uint64(b[i+8:]) != value {
			return 0, fmt.Errorf("block %d is torn: value %d at its begin, %d at byte %d", block, value,
				binary.LittleEndian.Uint64(b[i+8:]), i)
		}
	}
	return uint32(value), nil
}

// register is the model of one block. A step's input is its *op; unknown ones may have happened or not.
func register(block int, first uint32) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{first} },
		Step: func(state, input, _ any) []any {
			o := input.(*op)
			switch {
			case o.kind == opRead:
				if o.got[block-o.block] == state.(uint32) {
					return []any{state}
				}
				return nil
			case o.kind == opZero && o.unknown():
				if state.(uint32) == 0 {
					return []any{state}
				}
				return []any{state, uint32(0)}
			case o.kind == opZero:
				return []any{uint32(0)}
			case o.kind == opSwap && !o.unknown() && o.got[block-o.block] != state.(uint32):
				return nil
			}
			return []any{o.id}
		},
		Equal: func(a, b any) bool { return a == b },
	}
	return m.ToModel()
}

// certain is the same without unknown steps, which is quicker.
func certain(block int, first uint32) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return first },
		Step: func(state, input, _ any) (bool, any) {
			switch o := input.(*op); o.kind {
			case opRead:
				return o.got[block-o.block] == state.(uint32), state
			case opZero:
				return true, uint32(0)
			case opSwap:
				return o.unknown() || o.got[block-o.block] == state.(uint32), o.id
			default:
				return true, o.id
			}
		},
	}
}

// cell is a block of which what was not flushed may be lost: what it has, and what it may have after a loss.
type cell struct {
	has  uint32
	keep []uint32
}

func (c cell) set(v uint32) cell { return cell{v, append(slices.Clone(c.keep), v)} }

// cached is register with flushes and losses.
func cached(block int, first uint32) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{cell{first, []uint32{first}}} },
		Step: func(state, input, _ any) []any {
			s, o := state.(cell), input.(*op)
			switch {
			case o.kind == opFlush:
				return []any{cell{s.has, []uint32{s.has}}}
			case o.kind == opLoss:
				var out []any
				for i, v := range s.keep {
					if !slices.Contains(s.keep[:i], v) {
						out = append(out, cell{v, []uint32{v}})
					}
				}
				return out
			case o.kind == opRead:
				if o.got[block-o.block] == s.has {
					return []any{s}
				}
				return nil
			case o.kind == opZero && o.unknown():
				return []any{s, s.set(0)}
			case o.kind == opZero:
				return []any{s.set(0)}
			case o.kind == opSwap && !o.unknown() && o.got[block-o.block] != s.has:
				return nil
			case o.fua && !o.unknown():
				return []any{cell{o.id, []uint32{o.id}}}
			}
			return []any{s.set(o.id)}
		},
		Equal: func(a, b any) bool { return a.(cell).has == b.(cell).has && slices.Equal(a.(cell).keep, b.(cell).keep) },
	}
	return m.ToModel()
}

// check judges the blocks of a volume by porcupine.
func (h *history) check(vol int, s era, blocks []int) error {
	for _, b := range blocks {
		if err := h.checkBlock(vol, s, b); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) checkBlock(vol int, s era, block int) error {
	seen := map[uint32]bool{}
	for _, o := range h.ops {
		if o.tells() && o.covers(vol, block) && s.has(o) {
			seen[o.got[block-o.block]] = true
		}
	}
	var ops []porcupine.Operation
	unknown := false
	losses := slices.ContainsFunc(h.ops, func(o *op) bool { return o.kind == opLoss && o.vol == vol })
	for _, o := range h.ops {
		switch {
		case losses && o.vol == vol && (o.kind == opLoss || o.kind == opFlush && !o.unknown()):
		case !o.covers(vol, block) || !s.has(o):
			continue
		case o.kind == opRead && o.unknown():
			continue // nobody learned anything
		case (o.kind == opWrite || o.kind == opSwap) && o.unknown() && !seen[o.id]:
			continue // it may never have happened, and nobody saw it
		}
		ret := o.end()
		if ret == 0 {
			ret = h.clock + 1
		}
		unknown = unknown || o.kind == opZero && o.unknown()
		ops = append(ops, porcupine.Operation{ClientId: o.client, Input: o, Call: o.call, Return: max(ret, o.call)})
	}
	model := certain(block, s.begin(block))
	if unknown {
		model = register(block, s.begin(block))
	}
	if losses {
		model = cached(block, s.begin(block))
	}
	switch porcupine.CheckOperationsTimeout(model, ops, 20*time.Second) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("volume %d, block %d: porcupine found no answer in time for %d operations", vol, block, len(ops))
	}
	return fmt.Errorf("volume %d, block %d is not linearizable in %v from %d on:\n%s", vol, block, s, s.begin(block), h.story(vol, block))
}

func (o *op) covers(vol, block int) bool {
	return o.vol == vol && o.block <= block && block < o.block+o.n
}

// story tells what happened to a block.
func (h *history) story(vol, block int) string {
	s := ""
	for _, o := range h.ops {
		if !o.covers(vol, block) {
			continue
		}
		end := fmt.Sprint(o.ret)
		if o.ret == 0 {
			end = "no success"
		}
		if o.settled != 0 {
			end += fmt.Sprintf(", settled %d", o.settled)
		}
		got := ""
		if o.tells() {
			got = fmt.Sprintf(" -> %d", o.got[block-o.block])
		}
		s += fmt.Sprintf("  %10.6f [%d, %s] node %d epoch %d: %v%s\n", o.at.Seconds(), o.call, end, o.node, o.epoch, o, got)
	}
	return s
}
