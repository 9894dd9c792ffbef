package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
)

// files copies a tree of this machine into a share, again and again, each time into a directory of its own, and compares.
type files struct {
	meter
	client *nfsclient.Client
	root   nfs3.Handle
	from   fs.FS
	bytes  int64        // of the tree
	copies atomic.Int64 // that are whole
}

// The tree: directories with files of these many bytes at most, and a link in each.
const (
	treeDirs  = 8
	treeFiles = 12 // in each
	treeSize  = 192 << 10

	treeEntries = treeDirs * (1 + treeFiles + 1)
)

// errFiles is returned when the share does not hold what was copied.
var errFiles = errors.New("THE FILES IN THE SHARE DIFFER FROM THOSE THAT WERE COPIED")

// makeTree makes a tree of files, directories and symbolic links below dir, and tells how many bytes it has.
func makeTree(dir string, random *rand.Rand) (sum int64, err error) {
	for d := range treeDirs {
		at := filepath.Join(dir, fmt.Sprintf("dir%d", d))
		if d%2 == 1 { // half of them in another
			at = filepath.Join(dir, fmt.Sprintf("dir%d", d-1), "below")
		}
		if err := os.MkdirAll(at, 0o700); err != nil {
			return 0, fmt.Errorf("making the tree of files: %w", err)
		}
		for f := range treeFiles {
			p := make([]byte, random.IntN(treeSize)*f/treeFiles) // the first is empty
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			if err := os.WriteFile(filepath.Join(at, fmt.Sprintf("file%02d", f)), p, 0o600); err != nil {
				return 0, fmt.Errorf("making the tree of files: %w", err)
			}
			sum += int64(len(p))
		}
		if err := os.Symlink("file01", filepath.Join(at, "link")); err != nil {
			return 0, fmt.Errorf("making the tree of files: %w", err)
		}
	}
	return sum, nil
}

func copyName(n int64) string { return fmt.Sprintf("copy%03d", n) }

// run copies until ctx ends; the copy that is under way then is finished, in finish at the latest.
func (f *files) run(ctx context.Context, finish time.Duration) error {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(finish, cancel) })
	defer stop()
	for n := int64(1); ctx.Err() == nil; n++ {
		d, err := f.client.Mkdir(last, f.root, copyName(n), nfs3.SetAttr{})
		if err != nil {
			return fmt.Errorf("making the directory of copy %d: %w", n, err)
		}
		if err := f.client.Copy(last, f.from, d.File, func(string) { f.acknowledged() }); err != nil {
			return err
		}
		f.copies.Store(n)
	}
	return nil
}

// compare compares all copies with the tree, byte by byte. It is called when run has ended.
func (f *files) compare(ctx context.Context) error {
	for n := int64(1); n <= f.copies.Load(); n++ {
		d, err := f.client.Lookup(ctx, f.root, copyName(n))
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errFiles, copyName(n), err)
		}
		if err := f.client.Compare(ctx, f.from, d.File); err != nil {
			return fmt.Errorf("%w: %s: %w", errFiles, copyName(n), err)
		}
	}
	return nil
}
