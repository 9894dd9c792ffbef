// Package program builds pmsapp for the tests that run real daemons.
package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Build makes the program, as it is shipped, in a directory of the test's.
func Build(t testing.TB) string { return build(t, "0") }

// BuildRace makes it with the race detector.
func BuildRace(t testing.TB) string { return build(t, "1", "-race") }

func build(t testing.TB, cgo string, flags ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "pmsapp")
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", bin, "pmsapp/cmd/pmsapp")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building pmsapp: %v\n%s", err, out)
	}
	return bin
}
