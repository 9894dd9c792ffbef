package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// keep is how many entries a worker has at most.
const keep = 60

// errEmpty is returned for a manifest of nothing: a comparison with it would prove nothing.
var errEmpty = errors.New("nothing to compare")

type churnConfig struct {
	dir      string
	workers  int
	seed     uint64
	manifest string
}

// runChurn makes, writes, appends to, renames, links and removes files, symbolic links and directories, each worker in a
// directory of its own. Every operation must succeed exactly once: one that was lost or carried out twice shows as an
// error (EEXIST, ENOENT), as a wrong content or as a wrong number of links. Now and then, and in the end, what is there is compared.
func runChurn(ctx context.Context, cfg churnConfig, out io.Writer) error {
	p := newPulse(out)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all := make([]map[string]entry, cfg.workers)
	errs := make([]error, cfg.workers)
	var work sync.WaitGroup
	for i := range cfg.workers {
		work.Go(func() {
			sub := fmt.Sprintf("churn-%d-%d", cfg.seed, i)
			c := &churner{dir: filepath.Join(cfg.dir, sub), rand: rand.New(rand.NewPCG(cfg.seed, 1<<32|uint64(i))), p: p, have: map[string]entry{}}
			if errs[i] = c.run(ctx); errs[i] != nil {
				cancel()
			}
			all[i] = map[string]entry{}
			for name, e := range c.have {
				all[i][filepath.Join(sub, name)] = e.summed()
			}
		})
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if cfg.manifest != "" {
		whole := map[string]entry{}
		for _, m := range all {
			for name, e := range m {
				whole[name] = e
			}
		}
		b, err := json.Marshal(whole)
		if err != nil {
			return fmt.Errorf("the manifest: %w", err)
		}
		if err := os.WriteFile(cfg.manifest, b, 0o644); err != nil {
			return err
		}
	}
	return p.end()
}

// entry is what is under a name.
type entry struct {
	Dir   bool   `json:"dir,omitempty"`
	Link  string `json:"link,omitempty"` // a symbolic link's target
	Size  int64  `json:"size,omitempty"`
	Sum   string `json:"sum,omitempty"`
	Inode uint64 `json:"inode"`
	Names int    `json:"names"` // hard links
	data  []byte
}

// summed has the size and the checksum of a file's content.
func (e entry) summed() entry {
	if isFile(e) && e.Sum == "" {
		e.Size, e.Sum = int64(len(e.data)), sum(e.data)
	}
	return e
}

type churner struct {
	dir  string
	rand *rand.Rand
	p    *pulse
	have map[string]entry
	next int
}

func (c *churner) run(ctx context.Context) error {
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return err
	}
	for n := 1; ctx.Err() == nil; n++ {
		kind, err := c.step()
		if err != nil {
			return fmt.Errorf("operation %d of %s, %s: %w", n, c.dir, kind, err)
		}
		c.p.beat(kind)
		if n%500 == 0 {
			if err := compare(c.dir, c.have); err != nil {
				return fmt.Errorf("after operation %d of %s: %w", n, c.dir, err)
			}
		}
	}
	return compare(c.dir, c.have)
}

func (c *churner) path(name string) string { return filepath.Join(c.dir, name) }

func (c *churner) fresh(kind string) string {
	c.next++
	return fmt.Sprintf("%s%d", kind, c.next)
}

// pick returns a name whose entry satisfies f; "" if there is none.
func (c *churner) pick(f func(entry) bool) string {
	var names []string
	for name, e := range c.have {
		if f(e) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[c.rand.IntN(len(names))]
}

func isFile(e entry) bool { return !e.Dir && e.Link == "" }
func isDir(e entry) bool  { return e.Dir }
func isAny(entry) bool    { return true }

func (c *churner) step() (kind string, err error) {
	if len(c.have) >= keep {
		return c.remove()
	}
	switch c.rand.IntN(10) {
	case 0, 1, 2:
		return "create", c.create()
	case 3:
		name := c.fresh("d")
		if err := os.Mkdir(c.path(name), 0o755); err != nil {
			return "mkdir", err
		}
		return "mkdir", c.note(name, entry{Dir: true})
	case 4:
		name, to := c.fresh("s"), fmt.Sprint("to-", c.rand.Uint32())
		if err := os.Symlink(to, c.path(name)); err != nil {
			return "symlink", err
		}
		return "symlink", c.note(name, entry{Link: to})
	case 5, 6:
		if name := c.pick(isAny); name != "" {
			return "rename", c.rename(name)
		}
	case 7:
		if name := c.pick(isFile); name != "" {
			return "link", c.link(name)
		}
	case 8:
		if name := c.pick(isFile); name != "" {
			return "append", c.add(name)
		}
	}
	return c.remove()
}

// note records an entry that was made.
func (c *churner) note(name string, e entry) error {
	st, err := os.Lstat(c.path(name))
	if err != nil {
		return err
	}
	e.Inode, e.Names = st.Sys().(*syscall.Stat_t).Ino, 1
	c.have[name] = e
	return nil
}

func (c *churner) create() error {
	name := c.fresh("f")
	f, err := os.OpenFile(c.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	data := c.bytes()
	_, err = f.Write(data)
	if err == nil && c.rand.IntN(2) == 0 {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return c.note(name, entry{data: data})
}

func (c *churner) bytes() []byte {
	b := make([]byte, 1+c.rand.IntN(20000))
	for i := range b {
		b[i] = byte(c.rand.Uint32())
	}
	return b
}

// rename gives a new name, or, every third time, that of another file, which is gone then.
func (c *churner) rename(name string) error {
	e := c.have[name]
	to := c.fresh("r")
	if over := c.pick(isFile); isFile(e) && over != "" && c.rand.IntN(3) == 0 && c.have[over].Inode != e.Inode {
		to = over
	}
	if err := os.Rename(c.path(name), c.path(to)); err != nil {
		return err
	}
	if old, ok := c.have[to]; ok {
		c.names(old.Inode, -1)
	}
	delete(c.have, name)
	c.have[to] = e
	return nil
}

// names changes the number of names of a file.
func (c *churner) names(inode uint64, by int) {
	for name, e := range c.have {
		if e.Inode == inode {
			e.Names += by
			c.have[name] = e
		}
	}
}

func (c *churner) link(name string) error {
	to := c.fresh("l")
	if err := os.Link(c.path(name), c.path(to)); err != nil {
		return err
	}
	c.have[to] = c.have[name]
	c.names(c.have[name].Inode, 1)
	return nil
}

func (c *churner) add(name string) error {
	f, err := os.OpenFile(c.path(name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	more := c.bytes()
	_, err = f.Write(more)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	data := append(slices.Clone(c.have[name].data), more...)
	for n, e := range c.have {
		if e.Inode == c.have[name].Inode {
			e.data = data
			c.have[n] = e
		}
	}
	return nil
}

func (c *churner) remove() (string, error) {
	name := c.pick(isAny)
	if name == "" {
		return "create", c.create()
	}
	e := c.have[name]
	call, kind := syscall.Unlink, "unlink"
	if isDir(e) {
		call, kind = syscall.Rmdir, "rmdir"
	}
	if err := call(c.path(name)); err != nil {
		return kind, fmt.Errorf("%s: %w", name, err)
	}
	delete(c.have, name)
	c.names(e.Inode, -1)
	return kind, nil
}

// runCompare compares what another client sees with what churn left.
func runCompare(dir, manifest string, out io.Writer) error {
	b, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	var all map[string]entry
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("%s: %w", manifest, err)
	}
	subs := map[string]map[string]entry{}
	for name, e := range all {
		sub, base := filepath.Split(name)
		if subs[sub] == nil {
			subs[sub] = map[string]entry{}
		}
		subs[sub][base] = e
	}
	for sub, want := range subs {
		if err := compare(filepath.Join(dir, sub), want); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("%s: %w", manifest, errEmpty)
	}
	_, err = fmt.Fprintf(out, "%d entries are as they were left\n", len(all))
	return err
}

// compare proves that a directory has these entries and no others.
func compare(dir string, want map[string]entry) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, d := range list {
		e, ok := want[d.Name()]
		if !ok {
			return fmt.Errorf("%w: %s in %s was removed, renamed or never made", errDiffers, d.Name(), dir)
		}
		if err := compareOne(filepath.Join(dir, d.Name()), e); err != nil {
			return err
		}
	}
	if len(list) != len(want) {
		return fmt.Errorf("%w: %s has %d entries instead of %d", errDiffers, dir, len(list), len(want))
	}
	return nil
}

func compareOne(path string, e entry) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	kind := fs.FileMode(0)
	switch {
	case e.Dir:
		kind = fs.ModeDir
	case e.Link != "":
		kind = fs.ModeSymlink
	}
	if st.Mode().Type() != kind || sys.Ino != e.Inode || kind == 0 && int(sys.Nlink) != e.Names {
		return fmt.Errorf("%w: %s is %v, inode %d, %d links, instead of %v, %d, %d", errDiffers, path, st.Mode(), sys.Ino, sys.Nlink, kind, e.Inode, e.Names)
	}
	switch {
	case e.Link != "":
		if to, err := os.Readlink(path); err != nil {
			return err
		} else if to != e.Link {
			return fmt.Errorf("%w: %s points to %q instead of %q", errDiffers, path, to, e.Link)
		}
	case !e.Dir:
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if e = e.summed(); int64(len(b)) != e.Size || sum(b) != e.Sum {
			return fmt.Errorf("%w: %s has %d other bytes than the %d that were written", errDiffers, path, len(b), e.Size)
		}
	}
	return nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
