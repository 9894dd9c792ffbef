package admin

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"pmsapp/systemtest/program"
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestOperations holds docs/OPERATIONS.md against the program: every call, code, event and command is there, and it names no
// event or call that does not exist.
func TestOperations(t *testing.T) {
	doc := text(t, "../../docs/OPERATIONS.md")
	check := func(what, source, pattern string, row func(string) string) {
		t.Helper()
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(text(t, source), -1)
		if len(found) == 0 {
			t.Errorf("no %s in %s", what, source)
		}
		for _, m := range found {
			if !strings.Contains(doc, row(m[1])) {
				t.Errorf("OPERATIONS.md lacks the %s %s", what, m[1])
			}
		}
	}
	check("event", "../../replication/reign/effect.go", `Kind = "([a-z-]+)"`, func(s string) string { return "`" + s + "`" })
	check("call", "../../appliance/api/routes.go", `s\.handle\("([^"]+)"`, func(s string) string {
		return strings.NewReplacer("{name}", "NAME", "{volume}", "VOLUME", "{node}", "NODE").Replace(s)
	})
	check("call", "../../appliance/api/replicas.go", `s\.handle\("([^"]+)"`, func(s string) string {
		return strings.NewReplacer("{name}", "NAME", "{node}", "NODE").Replace(s)
	})
	check("call", "../../appliance/api/hosts.go", `s\.handle\("([^"]+)"`, func(s string) string {
		return strings.NewReplacer("{name}", "NAME", "{volume}", "VOLUME", "{host}", "HOST").Replace(s)
	})
	check("call", "../../appliance/api/shares.go", `s\.handle\("([^"]+)"`, func(s string) string { return strings.ReplaceAll(s, "{name}", "NAME") })
	check("code", "../../appliance/api/errors.go", `Code: "([a-z-]+)"`, func(s string) string { return "`" + s + "`" })
	check("event", "../../appliance/fill.go", `Kind: "([a-z-]+)"`, func(s string) string { return "`" + s + "`" })
	check("event", "../../cluster/catalog/restored.go", `Kind: "([a-z-]+)"`, func(s string) string { return "`" + s + "`" })
	check("event", "../../appliance/hosts.go", `Kind: "([a-z-]+)"`, func(s string) string { return "`" + s + "`" })
	kinds := text(t, "../../replication/reign/effect.go") + text(t, "../../appliance/fill.go") + text(t, "../../appliance/hosts.go") +
		text(t, "../../cluster/catalog/restored.go")
	events := doc[strings.Index(doc, "## Events"):strings.Index(doc, "## Warnings")]
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|").FindAllStringSubmatch(events, -1) {
		for _, k := range strings.Split(m[1], ", ") {
			if !strings.Contains(kinds, `"`+strings.Trim(k, "`")+`"`) {
				t.Errorf("there is no event %s", k)
			}
		}
	}

	bin := program.Build(t)
	for _, group := range []string{"", "node", "pool", "volume", "lun", "host", "share", "event", "leader", "catalog", "cluster"} {
		args := strings.Fields(group + " --help")
		out, err := exec.Command(bin, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %s", group, out)
		}
		_, list, _ := strings.Cut(string(out), "Commands:\n")
		for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+(?: [a-z-]+)?)`).FindAllStringSubmatch(list, -1) {
			name := strings.TrimSpace(m[1])
			if group != "" && !strings.HasPrefix(name, group) {
				name = group + " " + name
			}
			if !strings.Contains(doc, "`"+name) && !strings.Contains(doc, " "+name) {
				t.Errorf("OPERATIONS.md lacks the command %s", name)
			}
		}
	}
}
