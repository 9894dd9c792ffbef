// Package loop makes block devices of files (losetup), for tests of pools on block devices. It needs root.
package loop

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Device is a block device over a file.
type Device struct {
	Path  string // by which it is used: a link, which stays the same when the device becomes another
	Image string
	t     *testing.T
	dev   string // "": detached
}

// New makes a device of zeros, of size bytes, over a new file image. The test is skipped where none can be made.
func New(t *testing.T, path, image string, size int64) *Device {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("block devices are made by root alone")
	}
	d := &Device{Path: path, Image: image, t: t}
	if err := errors.Join(os.WriteFile(d.Image, nil, 0o600), os.Truncate(d.Image, size)); err != nil {
		t.Fatal(err)
	}
	d.Attach()
	t.Cleanup(d.Detach)
	return d
}

// Attach makes the device again after Detach.
func (d *Device) Attach() {
	d.t.Helper()
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", d.Image).CombinedOutput()
	if err != nil {
		d.t.Skipf("this machine makes no loop device: %v: %s", err, out)
	}
	d.dev = strings.TrimSpace(string(out))
	if err := os.Symlink(d.dev, d.Path); err != nil {
		d.t.Fatal(err)
	}
}

// Detach takes the device away, as if it had been pulled out; it ends when nobody has it open any more.
func (d *Device) Detach() {
	if d.dev == "" {
		return
	}
	out, err := exec.Command("losetup", "--detach", d.dev).CombinedOutput()
	if err = errors.Join(err, os.Remove(d.Path)); err != nil {
		d.t.Errorf("losetup: %v: %s", err, out)
	}
	d.dev = ""
}

// Used is how many bytes the image takes on its file system.
func (d *Device) Used() int64 {
	d.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(d.Image, &st); err != nil {
		d.t.Fatal(err)
	}
	return st.Blocks * 512
}
