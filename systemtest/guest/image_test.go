package guest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// packages are what the guests have besides Debian's minimum.
const packages = "netbase,udev,kmod,iproute2,procps,open-iscsi,multipath-tools,nfs-common,rpcbind,e2fsprogs,xfsprogs,fio,rsync,stress-ng,git,user-mode-linux"

const suite = "bookworm"

// boot is the guests' init: all else comes from the directory that the guest shares with the test.
const boot = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t hostfs none /host
exec /host/init
`

// image is what guests are started from.
type image struct{ kernel, root string }

// findImage finds the image in the user's cache directory, or makes it there: one to three minutes, once.
func findImage(t *testing.T) image {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "pmsapp", "guest")
	key := sha256.Sum256([]byte(packages + suite + boot))
	dir := filepath.Join(cache, fmt.Sprintf("%x", key[:8]))
	img := image{kernel: filepath.Join(dir, "linux.uml"), root: filepath.Join(dir, "root.img")}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); os.Chtimes(dir, now, now) == nil {
		return img
	}
	removeOld(t, cache)
	for _, tool := range []string{"mmdebstrap", "mke2fs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool, "is not installed (Debian packages mmdebstrap and e2fsprogs)")
		}
	}
	began := time.Now()
	work, err := os.MkdirTemp(cache, "making-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	if err := makeImage(t.Context(), work); err != nil {
		t.Fatal("making the guests' image: ", err)
	}
	if err := os.Rename(filepath.Join(work, "out"), dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("the guests' image was made in %v", time.Since(began).Round(time.Second))
	return img
}

// kept is how long an image stays that is not used any more.
const kept = 7 * 24 * time.Hour

// removeOld removes images, and what attempts to make one have left, that were not used for long.
func removeOld(t *testing.T, cache string) {
	t.Helper()
	all, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if info, err := d.Info(); err == nil && d.IsDir() && time.Since(info.ModTime()) > kept {
			if err := os.RemoveAll(filepath.Join(cache, d.Name())); err != nil {
				t.Log(err)
			}
		}
	}
}

// makeImage makes the root file system and takes the kernel out of it.
func makeImage(ctx context.Context, work string) error {
	root, out := filepath.Join(work, "root"), filepath.Join(work, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	if err := command(ctx, "mmdebstrap", "--mode=root", "--variant=minbase", "--include="+packages, `--aptopt=Acquire::Languages "none"`,
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*", suite, root); err != nil {
		return err
	}
	modules, err := filepath.Glob(filepath.Join(root, "usr/lib/uml/modules/*"))
	if err != nil || len(modules) != 1 {
		return errors.Join(err, fmt.Errorf("%d versions of the kernel's modules", len(modules)))
	}
	release := filepath.Base(modules[0])
	if err := os.MkdirAll(filepath.Join(root, "lib/modules"), 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/usr/lib/uml/modules/"+release, filepath.Join(root, "lib/modules", release)); err != nil {
		return err
	}
	if err := command(ctx, "chroot", root, "depmod", "-a", release); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(root, "host"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "sbin/guest-boot"), []byte(boot), 0o755); err != nil {
		return err
	}
	if err := command(ctx, "cp", filepath.Join(root, "usr/bin/linux.uml"), out); err != nil {
		return err
	}
	return command(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", root, filepath.Join(out, "root.img"), "2G")
}

// command runs a program to its end.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(string(out), 20))
	}
	return nil
}

// tail is the last lines of a text.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
