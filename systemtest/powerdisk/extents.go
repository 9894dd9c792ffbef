package powerdisk

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The request FS_IOC_FIEMAP and its structures, of include/uapi/linux/fiemap.h.
const (
	fiemapIoctl  = 0xc020660b
	fiemapSync   = 1
	fiemapLast   = 1
	fiemapHidden = 0x2 | 0x4 | 0x8 | 0x200 | 0x800 // of unknown place, not allocated yet, encoded, in an inode, never written
	fiemapMany   = 256
)

type fiemapExtent struct {
	logical, physical, length uint64
	_                         [2]uint64
	flags                     uint32
	_                         [3]uint32
}

type fiemap struct {
	start, length          uint64
	flags, mapped, extents uint32
	_                      uint32
	list                   [fiemapMany]fiemapExtent
}

// Places says where on the disk a file of its file system has its bytes between off and end.
func Places(path string, off, end int64) (list []Range, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for at := uint64(off); at < uint64(end); {
		m := &fiemap{start: at, length: uint64(end) - at, flags: fiemapSync, extents: fiemapMany}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemapIoctl, uintptr(unsafe.Pointer(m))); errno != 0 {
			return nil, os.NewSyscallError("fiemap", errno)
		}
		if m.mapped == 0 {
			return list, nil
		}
		for _, x := range m.list[:m.mapped] {
			from, to := max(x.logical, uint64(off)), min(x.logical+x.length, uint64(end))
			if x.flags&fiemapHidden == 0 && from < to {
				list = append(list, Range{int64(x.physical + from - x.logical), int64(to - from)})
			}
			if at = x.logical + x.length; x.flags&fiemapLast != 0 {
				return list, nil
			}
		}
	}
	return list, nil
}
