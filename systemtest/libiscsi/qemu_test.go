package libiscsi

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pmsapp/internal/block/blocktest"
	"pmsapp/systemtest/lunserver"
)

// qemuURL returns the LUN to test, or skips.
func qemuURL(t *testing.T) string {
	for _, p := range []string{"qemu-img", "qemu-io"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("needs ", p, " (Debian packages qemu-utils, qemu-block-extra)")
		}
	}
	if url := os.Getenv("ISCSI_URL"); url != "" {
		return url
	}
	return lunserver.Start(t, blocktest.NewMemory(64<<20, 512)).URL()
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestQemuIO writes patterns, zeros and discards through QEMU's initiator and reads them back.
func TestQemuIO(t *testing.T) {
	url := qemuURL(t)
	out := run(t, "qemu-io", "-f", "raw", "-t", "none", "-d", "unmap",
		"-c", "write -P 0x11 0 1M", "-c", "write -P 0x22 1M 64k", "-c", "write -P 0x33 512 512", "-c", "write -z 2M 3M",
		"-c", "write -f -P 0x44 5M 4k", "-c", "discard 1M 4k", "-c", "flush",
		"-c", "read -P 0x11 0 512", "-c", "read -P 0x33 512 512", "-c", "read -P 0x11 1k 1047552",
		"-c", "read -P 0x22 1052672 61440", "-c", "read -P 0 2M 3M", "-c", "read -P 0x44 5M 4k",
		"-c", "aio_write -P 0x55 8M 256k", "-c", "aio_write -P 0x66 9M 256k", "-c", "aio_flush",
		"-c", "read -P 0x55 8M 256k", "-c", "read -P 0x66 9M 256k", url)
	if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		t.Error(out)
	}
}

// TestQemuConvert copies an image into the LUN and back.
func TestQemuConvert(t *testing.T) {
	url := qemuURL(t)
	dir := t.TempDir()
	image, back := filepath.Join(dir, "image"), filepath.Join(dir, "back")
	b := make([]byte, 8<<20)
	for i := range b {
		if i>>20%3 != 1 { // with a hole of zeros
			b[i] = byte(i*7 + i>>9)
		}
	}
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, url)
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", url, back)
	got, err := os.ReadFile(back)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < len(b) || string(got[:len(b)]) != string(b) {
		t.Error("what was read back differs")
	}
}
