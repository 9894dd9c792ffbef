package guest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// imageVar has the image's files for the test's process in the namespaces.
const imageVar = "PMSAPP_GUEST_IMAGE"

// outside is true in the process that `go test` started. It has the same test run by a process of its own, in network,
// mount and process namespaces that end with it, and fails if that fails. In there outside is false, and the image is img.
func outside(t *testing.T) (img image, yes bool) {
	t.Helper()
	if v := os.Getenv(imageVar); v != "" {
		img.kernel, img.root, _ = strings.Cut(v, "\n")
		settle(t)
		return img, false
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to make namespaces and the guests' image")
	}
	img = findImage(t)
	args := []string{"-test.run=^" + regexp.QuoteMeta(t.Name()) + "$", "-test.v"}
	for _, a := range os.Args[1:] {
		if !strings.HasPrefix(a, "-test.") || strings.HasPrefix(a, "-test.timeout") {
			args = append(args, a)
		}
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), imageVar+"="+img.kernel+"\n"+img.root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Skipf("this machine does not allow namespaces: %v", err)
	}
	ran := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		// Its own words about passing and failing would be counted as further tests'.
		switch s := lines.Text(); {
		case strings.HasPrefix(s, "--- PASS: "+t.Name()):
			ran = true
		case strings.HasPrefix(s, "=== "), strings.HasPrefix(s, "--- "), s == "PASS", s == "FAIL":
		default:
			t.Log(s)
		}
	}
	if err := cmd.Wait(); err != nil || !ran {
		t.Fatalf("in the namespaces: %v; passed: %v", err, ran)
	}
	return img, true
}

// settle makes the namespaces a home: mounts that nobody else sees, its own /proc, and an address on its loopback.
func settle(t *testing.T) {
	t.Helper()
	for _, m := range []struct {
		what, at, kind string
		flags          uintptr
	}{{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE}, {"proc", "/proc", "proc", 0}, {"run", "/run", "tmpfs", 0}} {
		if err := syscall.Mount(m.what, m.at, m.kind, m.flags, ""); err != nil {
			t.Fatalf("mounting %s: %v", m.at, err)
		}
	}
	sh(t, "ip link set lo up")
}

// sh runs a command of the shell and returns what it printed.
func sh(t *testing.T, format string, args ...any) string {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	out, err := exec.Command("sh", "-ec", text).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", text, err, out)
	}
	return string(out)
}
