package soak

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pmsapp/systemtest/powerdisk"
	"pmsapp/systemtest/program"
)

// TestBites: a daemon that leaves a flush out loses something when its power fails, and the rounds see it. The program is built with a source
// file of its own in which that flush is left out.
func TestBites(t *testing.T) {
	if err := powerdisk.Usable(); err != nil {
		t.Skip(err)
	}
	const root = "../.."
	for _, b := range []struct {
		name, file, right, wrong string
		kinds                    []Kind
		memory                   bool
	}{
		{"the data are not flushed before the answer", "replication/replica/replica.go", "	if err := r.data.flush(); err != nil {\n		r.fail(", "	if err := error(nil); err != nil {\n		r.fail(", []Kind{PowerAll}, false},
		{"nothing of a pool is flushed", "replication/replica/osdisk.go", "return again(func() error { return unix.Fdatasync(int(o.f.Fd())) })", "return nil", []Kind{PowerAll}, false},
		{"the catalog is not flushed", "cluster/store.go", "NoFreelistSync: true,", "NoFreelistSync: true, NoSync: true,", []Kind{PowerAll, PowerLeader}, false},
		{"SYNCHRONIZE CACHE flushes nothing", "replication/replica/execute.go", "	case peer.Flush:\n		return r.sync()\n", "	case peer.Flush:\n		return nil\n", []Kind{PowerAll}, true},
		{"a replica that restarted passes for one that did not", "replication/reign/judge.go", "return x.Incarnation != now", "return false", []Kind{PowerAll}, true},
	} {
		t.Run(b.name, func(t *testing.T) {
			serve := filepath.Join(t.TempDir(), "serve")
			if out, err := exec.Command("go", "build", "-o", serve, "pmsapp/systemtest/powerdisk/serve").CombinedOutput(); err != nil {
				t.Fatalf("building the disks' server: %v: %s", err, out)
			}
			began := time.Now()
			done, err := Run(t.Context(), Config{Binary: program.BuildChanged(t, filepath.Join(root, b.file), b.right, b.wrong), Disks: serve, Dir: t.TempDir(),
				Rounds: 12, Ordered: true, Kinds: b.kinds, Memory: b.memory, Replicas: 2, Size: 16 << 20, Seed: uint64(began.UnixNano()), Out: testWriter{t}})
			if err == nil {
				t.Fatalf("%d rounds in %v saw nothing", len(done), time.Since(began))
			}
			t.Logf("seen in round %d: %v", len(done)+1, err)
		})
	}
}
