package replica

import (
	"path/filepath"

	"pmsapp/replication/peer"
)

// disk is what a node's files are on. The operating system's is osDisk; the tests' records every step and crashes between
// any two. What a crash leaves is what a call has promised, and no more:
//
//   - bytes written to a file are durable after its flush, or lost or kept sector by sector (512 bytes) before it;
//   - a name that was made, changed or removed is durable after syncDir of its directory;
//   - a process that dies makes nothing durable; it loses nothing, but of a pool on a block device perhaps what is not durable.
type disk interface {
	// open opens a file. It is used with offsets and lengths that are multiples of grain.
	open(path string, grain int) (file, error)
	// create makes a file of zeros, durable but for its name. reserve takes its space now.
	create(path string, size int64, reserve bool) error
	// extend makes a file that is shorter as long as size: what is new reads as zeros. It is durable when it returns.
	extend(path string, size int64) error
	mkdir(path string) error
	rename(from, to string) error
	removeAll(path string) error
	list(path string) ([]string, error)
	syncDir(path string) error
	// pool returns the files on the block device at a path, and what gives them up; nil for a directory, whose files are this
	// disk's. may says that a blank device may be formatted. accept looks at the files, which it may read, before anything is written.
	pool(path string, may bool, accept func(disk) error) (d disk, release func() error, err error)
	// usage returns how many bytes there are for files at a path, and how many are free.
	usage(path string) (size, free int64, err error)
	// failures counts the flushes that failed for all files together: with each, nothing is known of any unflushed byte of any of
	// them. It is 0 where a flush is of one file. It is counted before the flush that failed returns.
	failures() uint64
}

// file is an open file. All methods but close may be called concurrently.
type file interface {
	readAt(b []byte, off int64) error
	writeAt(b []byte, off int64) error
	// zero makes a range read as zeros and frees its space; it is durable after flush.
	zero(off, n int64) error
	// reserve takes the space of a range that is about to be written, where that helps; what is read of it does not change.
	reserve(off, n int64) error
	// extents returns where there may be data between off and end, in ascending order.
	extents(off, end int64) ([]peer.Extent, error)
	// flush makes what was written before durable. After it has failed nothing is known of any unflushed byte.
	flush() error
	size() (int64, error)
	// lock fails with ErrInUse while another process has the file locked.
	lock() error
	close() error
}

// writeNew makes a file with content under a name of its own, and then gives it its name, durably.
func writeNew(d disk, path string, b []byte) error {
	tmp := path + ".new"
	if err := d.removeAll(tmp); err != nil {
		return err
	}
	if err := d.create(tmp, int64(len(b)), false); err != nil {
		return err
	}
	f, err := d.open(tmp, blockSize)
	if err != nil {
		return err
	}
	err = f.writeAt(b, 0)
	if err == nil {
		err = f.flush()
	}
	if cerr := f.close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.rename(tmp, path)
	}
	if err == nil {
		err = d.syncDir(filepath.Dir(path))
	}
	return err
}

// readBlock reads the first block of an open file.
func readBlock(f file) ([]byte, error) {
	size, err := f.size()
	if err != nil {
		return nil, err
	}
	if size < blockSize {
		return nil, errShort(size)
	}
	b := make([]byte, blockSize)
	return b, f.readAt(b, 0)
}

func readBlockAt(d disk, path string) ([]byte, error) {
	f, err := d.open(path, blockSize)
	if err != nil {
		return nil, err
	}
	defer f.close()
	return readBlock(f)
}
