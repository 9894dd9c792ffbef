// Package lint holds tests about the code itself.
package lint

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers: what each top-level folder may import of this module, besides itself (ARCHITECTURE.md, Layout).
var layers = map[string][]string{
	"cmd":         {"appliance"},
	"appliance":   {"cluster", "target", "replication", "nfs", "internal"},
	"cluster":     {"internal"},
	"target":      {"internal"},
	"replication": {"internal"},
	"nfs":         {"internal"},
	"internal":    {},
	"systemtest":  {"appliance", "cluster", "target", "replication", "nfs", "internal"},
}

// TestImports proves that imports point one way: cmd -> appliance -> siblings -> internal.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "pmsapp/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; n++ {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := top(p.ImportPath)
		allowed, known := layers[from]
		if !known {
			t.Errorf("%s: a top-level folder that ARCHITECTURE.md does not know", p.ImportPath)
		}
		for _, imp := range append(append(p.Imports, p.TestImports...), p.XTestImports...) {
			if to := top(imp); to != "" && to != from && !contains(allowed, to) {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
	if n < 10 {
		t.Fatalf("only %d packages seen", n)
	}
}

func top(path string) string {
	rest, ours := strings.CutPrefix(path, "pmsapp/")
	if !ours {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}
