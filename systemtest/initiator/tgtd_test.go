package initiator

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const tgtdName = "iqn.2001-04.com.example:tgtd"

// skip skips a test and says why, without -v too.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	fmt.Fprintf(os.Stderr, "SKIPPED %s: %s\n", t.Name(), fmt.Sprintf(format, args...))
	t.Skipf(format, args...)
}

// startTgtd starts Debian's tgtd with one LUN, 1, of 64 MiB, and returns its portal and its tgtadm. It skips the test, saying why,
// where there is none.
func startTgtd(t *testing.T) (portal string, admin func(args ...string)) {
	t.Helper()
	for _, p := range []string{"tgtd", "tgtadm"} {
		if _, err := exec.LookPath(p); err != nil {
			skip(t, "%s is missing (Debian package tgt)", p)
		}
	}
	const sockets = "/var/run/tgtd"
	if err := os.MkdirAll(sockets, 0o755); err != nil {
		skip(t, "tgtd needs %s: %v", sockets, err)
	}
	if f, err := os.CreateTemp(sockets, "test"); err != nil {
		skip(t, "tgtd needs to write to %s: %v", sockets, err)
	} else {
		f.Close()
		os.Remove(f.Name())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	portal = l.Addr().String()
	l.Close()
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	control := fmt.Sprint(l.Addr().(*net.TCPAddr).Port % 32768) // a socket of its own, as the port is its own
	var log bytes.Buffer
	daemon := exec.Command("tgtd", "-f", "-C", control, "--iscsi", "portal="+portal)
	daemon.Stdout, daemon.Stderr = &log, &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		daemon.Process.Kill() // it would wait for its targets
		daemon.Wait()
		os.Remove(sockets + "/socket." + control)
		os.Remove(sockets + "/socket." + control + ".lock")
		if t.Failed() {
			t.Logf("tgtd: %s", log.Bytes())
		}
	})
	try := func(args ...string) ([]byte, error) {
		return exec.Command("tgtadm", append([]string{"-C", control, "--lld", "iscsi"}, args...)...).CombinedOutput()
	}
	admin = func(args ...string) {
		t.Helper()
		if out, err := try(args...); err != nil {
			t.Fatalf("tgtadm %v: %v: %s", args, err, out)
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 250 {
		if _, err := try("--mode", "sys", "--op", "show"); err == nil {
			break
		}
		<-tick.C
	}
	admin("--mode", "target", "--op", "new", "--tid", "1", "--targetname", tgtdName)
	admin("--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "--backing-store", image)
	admin("--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", "1", "--params", "thin_provisioning=1")
	admin("--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL")
	return portal, admin
}
