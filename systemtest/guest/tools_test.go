package guest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	smallFiles = flag.Int("files", 2000, "how many small files are made in a share")
	onlySteps  = flag.String("steps", "", "a regular expression: which steps are taken; all if empty")
	build      = flag.Bool("build", false, "a Go program is built in a share, which takes long in a guest: its standard library comes first")
)

// step is something that people do with files. check is what the other client does in the end to see it.
type step struct{ name, script, check string }

// steps of the first client, in the share. What fsx does is of our own making: Debian has no fsx.
func steps() []step {
	all := []step{
		{name: "stress-ng", script: `mkdir stress && stress-ng --temp-path stress --verify --timeout 10s --dir 1 --dentry 1 --rename 1 --link 1 --symlink 1 --hdd 1 --hdd-bytes 16m --iomix 1 --iomix-bytes 16m 2>&1
rm -r stress`},
		{"small files", fmt.Sprintf("time inside many -dir . -workers 8 -files %d", *smallFiles), fmt.Sprintf("inside found -dir . -workers 4 -files %d", *smallFiles)},
		{"git", `export GIT_CONFIG_COUNT=3 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=guest GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=guest@example \
	GIT_CONFIG_KEY_2=safe.directory GIT_CONFIG_VALUE_2='*'
rm -rf /tmp/repo && mkdir /tmp/repo && cp -r /etc /tmp/repo && rm -rf /tmp/repo/etc/ssl
git -C /tmp/repo init -q && git -C /tmp/repo add . && git -C /tmp/repo commit -qm one
git clone -q /tmp/repo clone && cd clone
echo two >>etc/hosts && git commit -qam two && git gc -q && git fsck --full --strict
test -z "$(git status --porcelain)"
diff -r --no-dereference etc /tmp/repo/etc | grep -q two`, "git -c safe.directory='*' -C clone fsck --full"},
		{name: "fsx", script: `for seed in 1 2; do inside fsx -file fsx-$seed -ops 2000 -seed $seed; done`},
		{name: "a tree by rsync", script: `mkdir tree
rsync -a /etc /usr/share/perl/5* tree/
test -z "$(rsync -anc --delete --itemize-changes /etc /usr/share/perl/5* tree/)"
find tree -type f | wc -l`},
	}
	built := step{name: "a Go program is built", script: `mkdir -p go/src go/tmp go/cache
cat >go/src/main.go <<'X'
package main

import "fmt"

func main() { fmt.Println("built on the share") }
X
export GOROOT=/host/go GOCACHE=$PWD/go/cache GOTMPDIR=$PWD/go/tmp GOPATH=$PWD/go GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=mod
cd go/src && go mod init hello 2>/dev/null && go build -o ../hello . && test "$(../hello)" = 'built on the share'`}
	if *build {
		all = append(all, built)
	}
	only := regexp.MustCompile(*onlySteps)
	return slices.DeleteFunc(all, func(s step) bool { return !only.MatchString(s.name) })
}

// TestGuestTools: what people do with a share, in two Linux clients, while leaders die: copy trees, clone and build, make many small
// files; and what testers do: fsx and stress-ng.
func TestGuestTools(t *testing.T) {
	img, yes := outside(t)
	if yes {
		return
	}
	newBridge(t)
	c := newCluster(t, true)
	c.newShare(8 << 30)
	m, other := newMachine(t, img, 1), newMachine(t, img, 2)
	m.mount()
	other.mount()
	if *build {
		m.toolchain()
	}
	second := other.start("churn", "churn -dir /mnt/s -workers 2 -seed 9")
	type result struct {
		step
		took time.Duration
		out  string
		err  error
	}
	results := make(chan result, len(steps()))
	go func() {
		defer close(results)
		for _, s := range steps() {
			began := time.Now()
			var out strings.Builder
			_, err := m.try(t.Context(), "set -e\nexport PATH=/host:/host/go/bin:$PATH\ncd /mnt/s\n"+s.script, &out)
			results <- result{s, time.Since(began), out.String(), err}
			if err != nil {
				return
			}
		}
	}()
	kills, done := 0, false
	next := time.After(10 * time.Second)
	for !done {
		select {
		case r, open := <-results:
			switch {
			case !open:
				done = true
			case r.err != nil:
				t.Fatalf("%s: %v: %s", r.name, r.err, tail(r.out, 40))
			default:
				t.Logf("%s: %v: %s", r.name, r.took.Round(time.Second), tail(r.out, 3))
			}
		case <-next:
			_, back := c.kill(fault(kills) % faults)
			kills++
			select {
			case <-time.After(8 * time.Second):
			case <-t.Context().Done():
			}
			back()
			c.whole()
			next = time.After(30 * time.Second)
		}
	}
	t.Logf("%d leaders died meanwhile", kills)
	if kills == 0 {
		t.Error("no leader died")
	}
	t.Log(second.stop())
	for _, s := range steps() {
		if s.check != "" {
			t.Log(other.run(5*time.Minute, "cd /mnt/s && PATH=/host:$PATH && %s", s.check))
		}
	}
	for _, g := range []*machine{m, other} {
		g.noNFSErrors()
		g.run(2*time.Minute, "umount /mnt/s")
	}
}

// toolchain shows the guest this machine's Go, which neither can change there.
func (m *machine) toolchain() {
	m.t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		m.t.Fatal(err)
	}
	at := filepath.Join(m.shared, "go")
	if err := os.Mkdir(at, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := syscall.Mount(strings.TrimSpace(string(root)), at, "", syscall.MS_BIND, ""); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			m.t.Error(err)
		}
	})
	if err := syscall.Mount("", at, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		m.t.Fatal(err)
	}
}
