package nfsdoor

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/nfs"
	"pmsapp/nfs/memshare"
)

// address is this test's own: the clients insist on portmap at port 111.
const address = "127.0.53.1"

// needs skips a test where a program is missing, and says which.
func needs(t *testing.T, packages string, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is missing (Debian packages %s)", p, packages)
		}
	}
}

// serve makes the front door answer at address, and returns the share's URL.
func serve(t *testing.T) (*memshare.Share, string) {
	t.Helper()
	share, exports := memshare.New(4<<30), &memshare.Exports{}
	exports.Set(nfs.Export{Path: "/vol", ID: ids.Volume{5}, Share: share, Rules: []nfs.Rule{{Clients: netip.MustParsePrefix("127.0.0.0/8")}}})
	srv, err := nfs.New(nfs.Config{Exports: exports, Ports: nfs.Ports{NFS: 2049, Mount: 2049, Portmap: 111}})
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{":111", ":2049"} {
		l, err := net.Listen("tcp", address+port)
		if err != nil {
			t.Skip("ports 111 and 2049 are not to be had: ", err)
		}
		p, err := net.ListenPacket("udp", address+port)
		if err != nil {
			t.Skip("ports 111 and 2049 are not to be had: ", err)
		}
		go srv.Serve(l)
		go srv.ServePacket(p)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return share, "nfs://" + address + "/vol"
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// random makes a file of a size with holes.
func random(t *testing.T, size int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "random")
	b := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte{7})
	for i := 0; i < size; i += 1 << 20 {
		if i>>20%8 != 3 {
			rnd.Read(b[i:min(size, i+1<<20)])
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLibnfs(t *testing.T) {
	needs(t, "libnfs-utils", "nfs-ls", "nfs-cp", "nfs-cat")
	share, url := serve(t)
	path := random(t, 20<<20+123)
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "nfs-cp", path, url+"/copied")
	if got := run(t, "nfs-cat", url+"/copied"); got != string(want) {
		t.Errorf("nfs-cat: %d bytes, not those that were copied", len(got))
	}
	back := filepath.Join(t.TempDir(), "back")
	run(t, "nfs-cp", url+"/copied", back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
		t.Error("nfs-cp back:", err)
	}
	for i := range 2000 {
		name := fmt.Sprintf("file-%04d-%s", i, strings.Repeat("n", i%180))
		if _, err := share.Create(t.Context(), nfs.Caller{XID: uint32(i)}, nfs.Name{Dir: share.Root(), Name: name}, nfs.Create{Mode: nfs3.Guarded}); err != nil {
			t.Fatal(err)
		}
	}
	list := run(t, "nfs-ls", url)
	if n := strings.Count(list, "file-"); n != 2000 || !strings.Contains(list, fmt.Sprint(len(want), " copied")) {
		t.Errorf("nfs-ls: %d of 2000 files\n%.2000s", n, list)
	}
}

func TestQEMU(t *testing.T) {
	needs(t, "qemu-utils qemu-block-extra", "qemu-img", "qemu-io")
	_, url := serve(t)
	path := random(t, 200<<20)
	for _, format := range []string{"raw", "qcow2"} {
		image := url + "/image." + format
		run(t, "qemu-img", "convert", "-f", "raw", "-O", format, path, image)
		run(t, "qemu-img", "compare", "-f", "raw", "-F", format, path, image)
		if info := run(t, "qemu-img", "info", "--output=json", "-f", format, image); !strings.Contains(info, fmt.Sprintf(`"virtual-size": %d`, 200<<20)) {
			t.Error(info)
		}
	}
	image := url + "/patterns"
	run(t, "qemu-img", "create", "-f", "raw", image, "64M")
	run(t, "qemu-io", "-f", "raw", "-t", "none", "-c", "write -P 0x11 0 1M", "-c", "write -P 0x22 1M 64k", "-c", "write -P 0x33 512 512",
		"-c", "write -f -P 0x44 5M 4k", "-c", "aio_write -P 0x55 8M 256k", "-c", "aio_write -P 0x66 9M 256k", "-c", "aio_flush", "-c", "flush",
		"-c", "write -P 0x77 60M 4M", image)
	out := run(t, "qemu-io", "-f", "raw", "-c", "read -P 0x11 0 512", "-c", "read -P 0x33 512 512", "-c", "read -P 0x11 1k 1047552",
		"-c", "read -P 0x22 1M 64k", "-c", "read -P 0 2M 2M", "-c", "read -P 0x44 5M 4k", "-c", "read -P 0x55 8M 256k",
		"-c", "read -P 0x66 9M 256k", "-c", "read -P 0x77 60M 4M", image)
	if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		t.Error(out)
	}
}

// TestAsked is how hypervisors look whether an NFS server is there.
func TestAsked(t *testing.T) {
	needs(t, "rpcbind nfs-common", "rpcinfo", "showmount")
	_, url := serve(t)
	for _, c := range []struct {
		args  []string
		wants []string
	}{
		{[]string{"rpcinfo", "-p", address}, []string{"100003    3   tcp   2049", "100005    3   udp   2049", "100000    2   tcp    111"}},
		{[]string{"rpcinfo", "-s", address}, []string{"nfs", "mountd", "portmapper"}},
		{[]string{"rpcinfo", "-t", address, "nfs", "3"}, []string{"ready and waiting"}},
		{[]string{"rpcinfo", "-u", address, "mountd", "3"}, []string{"ready and waiting"}},
		{[]string{"showmount", "--no-headers", "--exports", address}, []string{"/vol 127.0.0.0/8"}},
	} {
		begin := time.Now()
		out := run(t, c.args[0], c.args[1:]...)
		for _, w := range c.wants {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", strings.Join(c.args, " "), w, out)
			}
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("%s took %v: Proxmox does not wait for it", strings.Join(c.args, " "), d)
		}
	}
	needs(t, "libnfs-utils", "nfs-ls")
	run(t, "nfs-ls", "-D", url)
}
