package powerdisk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Config says what disk to make.
type Config struct {
	Server string // the program of ./serve
	Dir    string // of the disk's own
	Size   int64  // in bytes, a multiple of 4096
	Seed   uint64 // of what is lost
	// Buffered has the loop device use buffered I/O, not direct I/O.
	Buffered bool
}

// Disk is a disk, served by a process of its own. Its methods are for one goroutine at a time.
type Disk struct {
	// Mount is where the file system is mounted by Format and On.
	Mount  string
	cfg    Config
	device string // of the loop device, while it is attached
	cmd    *exec.Cmd
	orders io.WriteCloser
	enc    *json.Encoder
	dec    *json.Decoder
}

// Usable says why this machine cannot have such disks; nil: it can.
func Usable() error {
	if os.Getuid() != 0 {
		return errors.New("needs root, to mount file systems")
	}
	for _, f := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(f); err != nil {
			return fmt.Errorf("needs %s: %w", f, err)
		}
	}
	return nil
}

// New makes a disk that reads as zeros, with its device attached.
func New(cfg Config) (*Disk, error) {
	d := &Disk{cfg: cfg, Mount: filepath.Join(cfg.Dir, "files")}
	if err := os.MkdirAll(d.Mount, 0o700); err != nil {
		return nil, err
	}
	d.cmd = exec.Command(cfg.Server, "-dir", cfg.Dir, "-mount", d.Mount, "-size", fmt.Sprint(cfg.Size), "-seed", fmt.Sprint(cfg.Seed))
	d.cmd.Stderr = os.Stderr
	// Not of our process group: Ctrl-C ends the test, and the disk after it.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := d.cmd.StdoutPipe()
	if err == nil {
		d.orders, err = d.cmd.StdinPipe()
	}
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	d.enc, d.dec = json.NewEncoder(d.orders), json.NewDecoder(out)
	if err := d.dec.Decode(new(answer)); err != nil {
		return nil, errors.Join(fmt.Errorf("the disk does not start: %w", err), d.Close())
	}
	if err := d.attach(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Device is the disk as a block device, another one each time that the power comes back.
func (d *Disk) Device() string { return d.device }

func (d *Disk) attach() error {
	direct := "--direct-io=on"
	if d.cfg.Buffered {
		direct = "--direct-io=off"
	}
	out, err := run("losetup", "--find", "--show", direct, filepath.Join(d.cfg.Dir, mountName, fileName))
	d.device = strings.TrimSpace(out)
	return err
}

// detach takes the device away. Where another program's mount namespace has a copy of its mount, the kernel does that when the program ends: so long
// the device is there, with a handle of the disk's that is dead.
func (d *Disk) detach() error {
	if d.device == "" {
		return nil
	}
	_, err := run("losetup", "-d", d.device)
	d.device = ""
	return err
}

// Format makes an ext4 file system and mounts it.
func (d *Disk) Format() error {
	if _, err := run("mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", d.device); err != nil {
		return err
	}
	return d.mountFiles()
}

func (d *Disk) mountFiles() error {
	_, err := run("mount", "-t", "ext4", d.device, d.Mount)
	return err
}

func (d *Disk) unmountFiles() error {
	if _, err := run("mountpoint", "-q", d.Mount); err != nil {
		return nil
	}
	_, err := run("umount", d.Mount)
	return err
}

// Freeze is the moment at which the power begins to fail: from here on nothing is done or answered.
func (d *Disk) Freeze() error { return d.order(order{Do: doFreeze}, nil) }

// Aim is Freeze at the next flush that has something to flush, which is not done any more: Counts says when. A flush seldom takes long, so that a moment
// at random would seldom find anything that can be lost.
func (d *Disk) Aim() error { return d.order(order{Do: doAim}, nil) }

// Cut is where it has failed: unflushed writes are lost, everything fails until On. Whoever used the disk must be dead, or die of it.
func (d *Disk) Cut() (Loss, error) {
	var a answer
	err := d.order(order{Do: doCut}, &a)
	return a.Loss, err
}

// On brings the power back after Cut: what the kernel still had in its memory is gone, and the file system is mounted again if it was.
func (d *Disk) On() error {
	_, err := run("mountpoint", "-q", d.Mount)
	mounted := err == nil
	if err := errors.Join(d.unmountFiles(), d.detach()); err != nil {
		return err
	}
	if err := d.order(order{Do: doOn}, nil); err != nil {
		return err
	}
	if err := d.attach(); err != nil || !mounted {
		return err
	}
	return d.mountFiles()
}

// Check has fsck look at the file system, which is not mounted meanwhile. Its journal was replayed when it was mounted.
func (d *Disk) Check() error {
	if err := d.unmountFiles(); err != nil {
		return err
	}
	_, err := run("e2fsck", "-f", "-n", d.device)
	return errors.Join(err, d.mountFiles())
}

// Fail sets the faults; none ends them.
func (d *Disk) Fail(f ...Fault) error { return d.order(order{Do: doFail, Faults: f}, nil) }

// Counts says what the disk has done.
func (d *Disk) Counts() (Counts, error) {
	var a answer
	err := d.order(order{Do: doCount}, &a)
	return a.Counts, err
}

func (d *Disk) order(o order, a *answer) error {
	if a == nil {
		a = new(answer)
	}
	err := d.enc.Encode(o)
	if err == nil {
		err = d.dec.Decode(a)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	if err != nil {
		return fmt.Errorf("the disk in %s: %s: %w", d.cfg.Dir, o.Do, err)
	}
	return nil
}

// Close takes the disk away. Its image stays.
func (d *Disk) Close() error {
	var err error
	if d.device != "" {
		err = errors.Join(d.unmountFiles(), d.detach())
	}
	err = errors.Join(err, d.orders.Close())
	return errors.Join(err, d.cmd.Wait())
}

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}
