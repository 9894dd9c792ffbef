package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// chunk is how much of an image is copied or compared at a time.
const chunk = 1 << 20

var (
	// errImage is returned for an image that cannot be used.
	errImage = errors.New("the disk image cannot be used")
	// errDiffers is returned when the LUN does not hold the image.
	errDiffers = errors.New("THE LUN DIFFERS FROM THE IMAGE")
)

// image is a disk image whose copy is at the beginning of the LUN. Its tail is filled up with zeros to a whole block.
type image struct {
	path string
	size int64
}

// openImage looks at an image. room is how large it may be.
func openImage(path string, room int64) (*image, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w (name a file with IMAGE=path)", errImage, err)
	case !info.Mode().IsRegular() || info.Size() == 0:
		return nil, fmt.Errorf("%w: %s is empty or no plain file", errImage, path)
	case info.Size() > room:
		return nil, fmt.Errorf("%w: %s has %d bytes, and the volume has room for %d", errImage, path, info.Size(), room)
	}
	return &image{path, info.Size()}, nil
}

// copyTo writes the image to the beginning of d.
func (m *image) copyTo(ctx context.Context, d disk, progress func(done int64)) error {
	return m.each(progress, func(b []byte, off int64) error { return d.WriteAt(ctx, b, off) })
}

// compare reads the LUN and compares.
func (m *image) compare(ctx context.Context, d disk, progress func(done int64)) error {
	got := make([]byte, chunk)
	return m.each(progress, func(b []byte, off int64) error {
		if err := d.ReadAt(ctx, got[:len(b)], off); err != nil {
			return err
		}
		if !bytes.Equal(got[:len(b)], b) {
			return fmt.Errorf("%w within the %d bytes from %d on", errDiffers, len(b), off)
		}
		return nil
	})
}

func (m *image) each(progress func(int64), do func(b []byte, off int64) error) error {
	f, err := os.Open(m.path)
	if err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	defer f.Close()
	b := make([]byte, chunk)
	for off := int64(0); off < m.size; {
		n, err := io.ReadFull(f, b[:min(chunk, m.size-off)])
		if err != nil {
			return fmt.Errorf("%w: reading %s: %w", errImage, m.path, err)
		}
		whole := (n + blockSize - 1) / blockSize * blockSize
		clear(b[n:whole])
		if err := do(b[:whole], off); err != nil {
			return err
		}
		off += int64(n)
		progress(off)
	}
	return nil
}
