package replica

import "unsafe"

// aligned tells whether b begins and ends at multiples of n, a power of two.
func aligned(b []byte, n int) bool {
	return n <= 1 || (uintptr(unsafe.Pointer(unsafe.SliceData(b)))|uintptr(len(b)))&uintptr(n-1) == 0
}
