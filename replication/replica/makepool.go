package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"pmsapp/internal/ids"
)

// makePool makes a pool of an empty directory. The superblock comes last, when all else is durable: with it the directory is a
// pool. Nothing is removed but what an interrupted attempt has left.
func makePool(d disk, path string, cluster ids.Cluster, may bool) error {
	names, err := d.list(path)
	if err != nil {
		return fmt.Errorf("pool %s: %w (make the directory, or mount its disk)", path, err)
	}
	for _, name := range names {
		ours, err := leftOver(d, path, name)
		if err != nil {
			return fmt.Errorf("pool %s: %w", path, err)
		}
		if !ours {
			return fmt.Errorf("pool %s: %w: it has %q; empty it, or name another directory", path, ErrNotEmpty, name)
		}
	}
	if !may {
		return fmt.Errorf("pool %s: %w: is its disk mounted?", path, ErrNotPool)
	}
	err = d.removeAll(filepath.Join(path, fileEpochs))
	if err == nil {
		if err = d.mkdir(filepath.Join(path, dirReplicas)); errors.Is(err, os.ErrExist) {
			err = nil
		}
	}
	if err == nil {
		err = d.create(filepath.Join(path, fileEpochs), 2*blockSize, true)
	}
	if err == nil {
		err = d.syncDir(path)
	}
	if err == nil {
		err = writeNew(d, filepath.Join(path, filePool), poolSuper{cluster, ids.NewPool()}.encode())
	}
	if err != nil {
		return fmt.Errorf("making pool %s: %w", path, err)
	}
	return nil
}

// leftOver tells whether a name in a directory without a superblock is a file system's own, or what an interrupted attempt to
// make a pool has left. Epochs that were recorded, and replicas, are never that: there has been a superblock.
func leftOver(d disk, path, name string) (bool, error) {
	lost := func() (bool, error) {
		return false, fmt.Errorf("%w: it has %s and no superblock; restore %s from a backup", ErrDamaged, name, filePool)
	}
	switch name {
	case "lost+found", filePool + ".new":
		return true, nil
	case dirReplicas:
		sub, err := d.list(filepath.Join(path, name))
		if err != nil {
			return false, nil // no directory
		}
		if len(sub) > 0 {
			return lost()
		}
		return true, nil
	case fileEpochs:
		f, err := d.open(filepath.Join(path, name), blockSize)
		if err != nil {
			return false, nil // no file
		}
		defer f.close()
		b := make([]byte, 2*blockSize)
		if n, err := f.size(); err != nil || n > int64(len(b)) {
			return false, err
		} else if n == int64(len(b)) {
			if err := f.readAt(b, 0); err != nil {
				return false, err
			}
		} else if n > 0 {
			return false, nil // it is made with its size
		}
		if !allZero(b) {
			return lost()
		}
		return true, nil
	}
	return false, nil
}
