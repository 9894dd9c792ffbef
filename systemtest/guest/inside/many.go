package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
)

// perDirectory is how many of the small files are in one directory.
const perDirectory = 25000

type manyConfig struct {
	dir     string
	files   int
	workers int
}

func (c manyConfig) path(i int) string {
	return filepath.Join(c.dir, fmt.Sprintf("many-%d", i/perDirectory), fmt.Sprintf("f%d", i))
}

// content is that of file i: 0 to 4 KiB.
func (c manyConfig) content(i int) []byte {
	return bytes.Repeat([]byte(strconv.Itoa(i)+" "), (i%7)*(4096/7)/(len(strconv.Itoa(i))+1))
}

// runMany makes many small files, each of which must not be there yet.
func runMany(ctx context.Context, c manyConfig, out io.Writer) error {
	for i := 0; i < c.files; i += perDirectory {
		if err := os.Mkdir(filepath.Dir(c.path(i)), 0o755); err != nil {
			return err
		}
	}
	return c.each(ctx, out, "created", func(i int) error {
		f, err := os.OpenFile(c.path(i), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(c.content(i))
		return errors.Join(err, f.Close())
	})
}

// runFound proves that all of them are there, with their contents, and listed once each.
func runFound(ctx context.Context, c manyConfig, out io.Writer) error {
	for i := 0; i < c.files; i += perDirectory {
		list, err := os.ReadDir(filepath.Dir(c.path(i)))
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, d := range list {
			if seen[d.Name()] {
				return fmt.Errorf("%w: %s is listed twice", errDiffers, d.Name())
			}
			seen[d.Name()] = true
		}
		if want := min(perDirectory, c.files-i); len(list) != want {
			return fmt.Errorf("%w: %d files are listed of %d", errDiffers, len(list), want)
		}
	}
	return c.each(ctx, out, "read", func(i int) error {
		got, err := os.ReadFile(c.path(i))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, c.content(i)) {
			return fmt.Errorf("%w: %s has %d bytes", errDiffers, c.path(i), len(got))
		}
		return nil
	})
}

// each does something with every file, several at once.
func (c manyConfig) each(ctx context.Context, out io.Writer, kind string, do func(i int) error) error {
	p := newPulse(out)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, c.workers)
	var next atomic.Int64
	var work sync.WaitGroup
	for w := range c.workers {
		work.Go(func() {
			for i := int(next.Add(1)) - 1; i < c.files && errs[w] == nil && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if errs[w] = do(i); errs[w] != nil {
					cancel()
				}
				p.beat(kind)
			}
		})
	}
	work.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return err
	}
	return p.end()
}
