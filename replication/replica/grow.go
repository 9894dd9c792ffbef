package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"pmsapp/internal/block"
	"pmsapp/replication/peer"
)

// grownMap is the name of the map of a replica that is being made as large as size: it becomes the map when the superblock says
// that size, and is nothing before.
func grownMap(size int64) string { return fileMap + "." + strconv.FormatInt(size, 10) }

// grow makes a replica larger. The data first, then the map for that size under another name; then the superblock, which is what
// decides; then the map gets its name. A crash leaves a replica of the old size or of the new one (finishGrowth).
func (p *pool) grow(spec peer.Spec) error {
	if err := checkSpec(spec); err != nil {
		return err
	}
	p.shape.Lock()
	defer p.shape.Unlock()
	r := p.find(spec.Volume)
	if r == nil {
		return fmt.Errorf("volume %s: %w", spec.Volume, peer.ErrNoReplica)
	}
	r.use.Lock() // waits for its commands
	defer r.use.Unlock()
	if r.gone || r.foreign != nil {
		return fmt.Errorf("volume %s: %w", spec.Volume, peer.ErrNoReplica)
	}
	if err := r.state(); err != nil {
		return brokenError(err)
	}
	old := r.spec
	switch {
	case old.Lineage != spec.Lineage || old.Region != spec.Region || old.Size%sumBlock != 0 || spec.Size%sumBlock != 0:
		return fmt.Errorf("a replica of %d bytes is to have %d: %w", old.Size, spec.Size, peer.ErrInvalid)
	case spec.Size <= old.Size:
		return nil // it was done before
	}
	if err := r.makeRoom(old, spec); err != nil {
		return diskError("making a replica larger", errors.Join(err, r.disk.removeAll(filepath.Join(r.dir, grownMap(spec.Size)))))
	}
	// From here on what the disk says is not known until it is opened anew, whatever fails.
	err := writeNew(r.disk, filepath.Join(r.dir, fileSuper), encodeSpec(spec))
	sums := r.sums
	r.closeFiles()
	if err == nil {
		err = r.open()
	}
	if err == nil {
		r.sums.goOn(sums)
	}
	if err != nil {
		r.closeFiles()
		r.fail(fmt.Errorf("making the replica of %s larger: %w", spec.Volume, err))
		return brokenError(err)
	}
	return nil
}

// goOn takes over what is known of the file of sums: this process wrote it, so it holds for active regions too.
func (s *sums) goOn(old *sums) {
	if s.off.Load() || old.off.Load() {
		return
	}
	copy(s.void, old.void)
	s.dirty.Store(true)
}

// makeRoom prepares the files for another size, durably, and changes nothing that is used before the superblock has it.
func (r *replica) makeRoom(old, spec peer.Spec) error {
	if err := r.disk.extend(filepath.Join(r.dir, fileData), spec.Size); err != nil {
		return err
	}
	// What the sums say of the blocks that there were still holds. A replica without the file gets another when it is opened.
	if err := r.disk.extend(filepath.Join(r.dir, fileSums), sumsSize(spec.Size)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	path := filepath.Join(r.dir, grownMap(spec.Size))
	if err := r.disk.removeAll(path); err != nil {
		return err
	}
	if err := r.disk.create(path, mapSize(spec), true); err != nil {
		return err
	}
	f, err := r.disk.open(path, blockSize)
	if err != nil {
		return err
	}
	// Its blocks stay where they are; what comes behind them goes to the end.
	blocks := mapBlocks(old)
	if err = copyFile(f, r.mapf, 0, 0, blocks); err == nil {
		err = copyFile(f, r.mapf, mapBlocks(spec), blocks, mapSize(old)-blocks)
	}
	if err == nil {
		err = f.flush()
	}
	if err = errors.Join(err, f.close()); err == nil {
		err = r.disk.syncDir(r.dir)
	}
	return err
}

// mapBlocks is the part of the map's file that has the blocks; behind them is the record of the others (others.go).
func mapBlocks(s peer.Spec) int64 {
	return 2 * blockSize * int64((regionsOf(s)+perBlock-1)/perBlock)
}

func copyFile(to, from file, at, off, n int64) error {
	b := block.Get(int(min(max(n, blockSize), 1<<20)))
	defer block.Put(b)
	for n > 0 {
		part := b[:min(n, int64(len(b)))]
		if err := from.readAt(part, off); err != nil {
			return err
		}
		if err := to.writeAt(part, at); err != nil {
			return err
		}
		at, off, n = at+int64(len(part)), off+int64(len(part)), n-int64(len(part))
	}
	return nil
}

// finishGrowth gives the map of the size that the superblock says its name, if a crash came before that, and removes one of a size
// that the replica did not come to.
func (r *replica) finishGrowth(spec peer.Spec) error {
	names, err := r.disk.list(r.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == grownMap(spec.Size) {
			// The name of the superblock is not durable for certain, and it must not be followed by this one alone.
			if err := r.disk.syncDir(r.dir); err != nil {
				return err
			}
			if err := r.disk.rename(filepath.Join(r.dir, name), filepath.Join(r.dir, fileMap)); err != nil {
				return err
			}
			if err := r.disk.syncDir(r.dir); err != nil {
				return err
			}
		} else if strings.HasPrefix(name, fileMap+".") {
			if err := r.disk.removeAll(filepath.Join(r.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
