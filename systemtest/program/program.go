// Package program builds pmsapp, and forms clusters of it, for the tests that run real daemons.
package program

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Build makes the program, as it is shipped, in a directory of the test's.
func Build(t testing.TB) string { return build(t, "0") }

// BuildRace makes it with the race detector.
func BuildRace(t testing.TB) string { return build(t, "1", "-race") }

// BuildChanged makes it with a change of one of its source files, which must have the text that is changed exactly once.
func BuildChanged(t testing.TB, file, text, with string) string {
	t.Helper()
	file, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), text); n != 1 {
		t.Fatalf("%s has the text that is to be changed %d times: %s", file, n, text)
	}
	changed, overlay := filepath.Join(t.TempDir(), filepath.Base(file)), filepath.Join(t.TempDir(), "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{changed: []byte(strings.Replace(string(b), text, with, 1)), overlay: list} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return build(t, "0", "-overlay", overlay)
}

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
