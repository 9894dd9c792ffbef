package nfsclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"pmsapp/internal/nfs3"
)

// ErrDiffers is returned by Compare.
var ErrDiffers = errors.New("nfsclient: the trees differ")

// piece is how many bytes one WRITE or READ of Copy and Compare carries.
const piece = 256 << 10

// Copy makes a file tree below dir, with its files, directories and symbolic links, and makes it durable. told, if not nil,
// is told each path when it is done.
func (c *Client) Copy(ctx context.Context, from fs.FS, dir nfs3.Handle, told func(path string)) error {
	dirs := map[string]nfs3.Handle{".": dir}
	return fs.WalkDir(from, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		where := nfs3.DirOp{Dir: dirs[path.Dir(name)], Name: path.Base(name)}
		switch e.Type() {
		case fs.ModeDir:
			var r Found
			mode := uint32(0o755)
			if r, err = c.Mkdir(ctx, where.Dir, where.Name, nfs3.SetAttr{Mode: &mode}); err == nil {
				dirs[name] = r.File
			}
		case fs.ModeSymlink:
			var text string
			if text, err = fs.ReadLink(from, name); err == nil {
				_, err = c.Symlink(ctx, where.Dir, where.Name, text)
			}
		default:
			err = c.copyFile(ctx, from, name, where)
		}
		if err != nil {
			return fmt.Errorf("copying %s: %w", name, err)
		}
		if told != nil {
			told(name)
		}
		return nil
	})
}

func (c *Client) copyFile(ctx context.Context, from fs.FS, name string, where nfs3.DirOp) error {
	f, err := from.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mode := uint32(info.Mode().Perm())
	r, err := c.Create(ctx, nfs3.CreateArgs{Where: where, How: nfs3.Guarded, Attr: nfs3.SetAttr{Mode: &mode}})
	if err != nil {
		return err
	}
	b := make([]byte, piece)
	var v nfs3.Verifier
	var off uint64
	all := true // the writes since the first have the same verifier
	for end := false; !end; {
		n, err := io.ReadFull(f, b)
		if end = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); err != nil && !end {
			return err
		}
		if n == 0 {
			break
		}
		w, err := c.writeAll(ctx, r.File, off, b[:n], nfs3.Unstable)
		if err != nil {
			return err
		}
		if off == 0 {
			v = w.Verifier
		}
		all = all && w.Verifier == v
		off += uint64(n)
	}
	if off == 0 {
		return nil
	}
	done, err := c.Commit(ctx, r.File, 0, 0)
	if err != nil || all && done.Verifier == v {
		return err
	}
	return c.rewrite(ctx, from, name, r.File) // the server may have lost unstable writes
}

// rewrite writes a file again, durably.
func (c *Client) rewrite(ctx context.Context, from fs.FS, name string, h nfs3.Handle) error {
	f, err := from.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, piece)
	for off := uint64(0); ; {
		n, err := io.ReadFull(f, b)
		if n == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if _, err := c.writeAll(ctx, h, off, b[:n], nfs3.FileSync); err != nil {
			return err
		}
		off += uint64(n)
	}
}

// writeAll writes p even if the server takes it in parts.
func (c *Client) writeAll(ctx context.Context, h nfs3.Handle, off uint64, p []byte, how nfs3.Stable) (w Written, err error) {
	for len(p) > 0 {
		if w, err = c.Write(ctx, h, off, p, how); err != nil {
			return w, err
		}
		if w.Count == 0 || int(w.Count) > len(p) {
			return w, fmt.Errorf("%d of %d bytes written: %w", w.Count, len(p), io.ErrShortWrite)
		}
		p, off = p[w.Count:], off+uint64(w.Count)
	}
	return w, nil
}

// Compare returns ErrDiffers unless the tree below dir is the one that was copied from there: the same names, contents
// and links, nothing missing and nothing more.
func (c *Client) Compare(ctx context.Context, with fs.FS, dir nfs3.Handle) error {
	return c.compareDir(ctx, with, ".", dir)
}

func (c *Client) compareDir(ctx context.Context, with fs.FS, name string, dir nfs3.Handle) error {
	want, err := fs.ReadDir(with, name)
	if err != nil {
		return err
	}
	got, err := c.List(ctx, dir)
	if err != nil {
		return err
	}
	got = slices.DeleteFunc(got, func(e Entry) bool { return e.Name == "." || e.Name == ".." })
	if len(got) != len(want) {
		return fmt.Errorf("%w: %s has %d entries, not %d", ErrDiffers, name, len(got), len(want))
	}
	byName := map[string]nfs3.Handle{}
	for _, e := range got {
		byName[e.Name] = e.File
	}
	for _, e := range want {
		below := path.Join(name, e.Name())
		h, found := byName[e.Name()]
		switch {
		case !found:
			err = fmt.Errorf("%w: no %s", ErrDiffers, below)
		case e.IsDir():
			err = c.compareDir(ctx, with, below, h)
		case e.Type() == fs.ModeSymlink:
			err = c.compareLink(ctx, with, below, h)
		default:
			err = c.compareFile(ctx, with, below, h)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) compareLink(ctx context.Context, with fs.FS, name string, h nfs3.Handle) error {
	want, err := fs.ReadLink(with, name)
	if err != nil {
		return err
	}
	got, _, err := c.Readlink(ctx, h)
	if err == nil && got != want {
		err = fmt.Errorf("%w: %s leads to %q", ErrDiffers, name, got)
	}
	return err
}

func (c *Client) compareFile(ctx context.Context, with fs.FS, name string, h nfs3.Handle) error {
	want, err := fs.ReadFile(with, name)
	if err != nil {
		return err
	}
	for off := 0; ; {
		r, err := c.Read(ctx, h, uint64(off), piece)
		if err != nil {
			return err
		}
		end := off + len(r.Data)
		if end > len(want) || !bytes.Equal(r.Data, want[off:end]) || r.EOF && end != len(want) || !r.EOF && len(r.Data) == 0 {
			return fmt.Errorf("%w: %s, bytes %d to %d", ErrDiffers, name, off, end)
		}
		if r.EOF {
			return nil
		}
		off = end
	}
}
