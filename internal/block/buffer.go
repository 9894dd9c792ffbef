package block

import (
	"math/bits"
	"sync"
	"unsafe"
)

// Align is the alignment in memory of every buffer from Get: enough for direct I/O on any disk in use.
const Align = 4096

const (
	minClass = 12 // 4 KiB
	maxClass = 23 // 8 MiB
)

var classes [maxClass + 1]sync.Pool // of *byte: the first byte of an aligned buffer of 1<<class bytes

// Get returns a buffer of n bytes, aligned to Align, with arbitrary contents. Buffers of up to 8 MiB are pooled.
func Get(n int) []byte {
	if n == 0 {
		return nil
	}
	c := max(bits.Len(uint(n-1)), minClass)
	if c > maxClass {
		return alloc(n)
	}
	if p, ok := classes[c].Get().(*byte); ok {
		return unsafe.Slice(p, 1<<c)[:n]
	}
	return alloc(1 << c)[:n]
}

// Put gives a buffer from Get back. Nothing may use it, or a part of it, afterwards. Other buffers are ignored.
func Put(b []byte) {
	n := cap(b)
	if n == 0 || n&(n-1) != 0 || !Aligned(b) {
		return
	}
	if c := bits.Len(uint(n)) - 1; c >= minClass && c <= maxClass {
		classes[c].Put(unsafe.SliceData(b))
	}
}

// Aligned tells whether b begins at a multiple of Align.
func Aligned(b []byte) bool {
	return len(b) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%Align == 0
}

func alloc(n int) []byte {
	raw := make([]byte, n+Align)
	skip := (Align - int(uintptr(unsafe.Pointer(&raw[0]))%Align)) % Align
	return raw[skip : skip+n : skip+n]
}
