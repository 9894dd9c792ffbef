package clients

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmsapp/appliance/api"
	"pmsapp/appliance/local"
	"pmsapp/systemtest/libiscsi"
	"pmsapp/systemtest/program"
)

// needs skips a test where a program is missing, and says which.
func needs(t *testing.T, packages string, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is missing (Debian packages %s)", p, packages)
		}
	}
}

// cluster starts three nodes with a LUN of two replicas and returns its URL at the virtual address.
func cluster(t *testing.T, size int64, paths string) (*local.Cluster, string) {
	t.Helper()
	c := program.Cluster(t, local.Config{Nodes: 3})
	if _, err := c.Client().CreateVolume(t.Context(), api.NewVolume{Name: "v", Size: size, Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	lun, err := c.Client().Export(t.Context(), api.NewLUN{Volume: "v", Paths: paths})
	if err != nil {
		t.Fatal(err)
	}
	served(t, c, "")
	return c, fmt.Sprintf("iscsi://%s/%s/%d", c.Virtual, lun.Target, lun.Number)
}

// served waits until a leader other than former serves the LUN at the virtual address.
func served(t *testing.T, c *local.Cluster, former string) api.Status {
	t.Helper()
	st, err := c.WaitStatus(t.Context(), "the LUN to be served", 30*time.Second, func(s api.Status) bool {
		return s.Leader != "" && s.Leader != former && s.Bound && len(s.Volumes) == 1 && s.Volumes[0].Served
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestConvertAcrossFailover copies an image into the LUN with qemu-img while the leader is killed, and compares.
func TestConvertAcrossFailover(t *testing.T) {
	needs(t, "qemu-utils qemu-block-extra", "qemu-img")
	const size = 512 << 20
	c, url := cluster(t, size, "")
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	// Random data, with holes: what follows from a seed.
	random := rand.NewChaCha8([32]byte{1})
	b := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(b)) {
		if off>>20%8 == 3 {
			continue
		}
		random.Read(b)
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	leader := served(t, c, "").Leader
	copied := make(chan error, 1)
	var out []byte
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		var err error
		out, err = exec.CommandContext(ctx, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, url).CombinedOutput()
		copied <- err
	}()
	select {
	case err := <-copied:
		t.Fatalf("it ended before the leader was killed: %v\n%s", err, out)
	case <-time.After(300 * time.Millisecond):
	}
	if err := c.Kill(c.Index(leader)); err != nil {
		t.Fatal(err)
	}
	if err := <-copied; err != nil {
		t.Fatalf("qemu-img convert: %v\n%s", err, out)
	}
	if next := served(t, c, leader); next.Epoch < 2 {
		t.Fatal("nobody has taken over:", next.Epoch)
	}
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, url)
}

// TestPatternsAcrossFailover writes patterns with qemu-io, kills the leader, and reads them through the next, twice.
func TestPatternsAcrossFailover(t *testing.T) {
	needs(t, "qemu-utils qemu-block-extra", "qemu-io")
	c, url := cluster(t, 64<<20, "")
	writes := []string{"-f", "raw", "-t", "none", "-d", "unmap", "-c", "write -P 0x11 0 1M", "-c", "write -P 0x22 1M 64k",
		"-c", "write -P 0x33 512 512", "-c", "write -P 0x77 2M 3M", "-c", "write -z 2M 2M", "-c", "write -f -P 0x44 5M 4k",
		"-c", "discard 1M 4k", "-c", "aio_write -P 0x55 8M 256k", "-c", "aio_write -P 0x66 9M 256k", "-c", "aio_flush", "-c", "flush"}
	reads := []string{"-f", "raw", "-c", "read -P 0x11 0 512", "-c", "read -P 0x33 512 512", "-c", "read -P 0x11 1k 1047552",
		"-c", "read -P 0x22 1052672 61440", "-c", "read -P 0 2M 2M", "-c", "read -P 0x77 4M 1M", "-c", "read -P 0x44 5M 4k",
		"-c", "read -P 0x55 8M 256k", "-c", "read -P 0x66 9M 256k", "-c", "read -P 0 16M 16M"}
	run(t, "qemu-io", append(writes, url)...)
	leader := served(t, c, "").Leader
	for range 2 {
		out := run(t, "qemu-io", append(reads, url)...)
		if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
			t.Fatal(out)
		}
		if c.Nodes[c.Index(leader)].Running() {
			if err := c.Kill(c.Index(leader)); err != nil {
				t.Fatal(err)
			}
			served(t, c, leader)
		}
	}
}

// TestLibiscsi runs libiscsi's whole suite against the LUN of a cluster. The second path of MultipathIO is the portal of a node that
// stands by, from which logins are sent to the one that serves: the suite writes and reads by every path.
func TestLibiscsi(t *testing.T) {
	needs(t, "libiscsi-bin", libiscsi.Program)
	c, url := cluster(t, 256<<20, "redirect")
	st, second := served(t, c, ""), ""
	for _, n := range c.Nodes {
		if n.Name != st.Leader {
			second = strings.Replace(url, c.Virtual, n.Config.Address.Portal, 1)
		}
	}
	results, err := libiscsi.Run(t.Context(), url, libiscsi.Options{Second: second, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	libiscsi.Table(&table, results)
	t.Log("\n" + table.String())
	for _, err := range libiscsi.Unexpected(results) {
		t.Error(err)
	}
}
