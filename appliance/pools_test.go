package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/replication/replica"
)

// disks are pools of which some hang while they are opened.
type disks struct {
	hangs map[string]chan struct{}
	fails map[string]error

	mu    sync.Mutex
	ids   map[string]ids.Pool
	open  []replica.PoolInfo
	tries map[string]int
}

func (d *disks) AddPool(path string, _ bool) (ids.Pool, error) {
	d.mu.Lock()
	d.tries[path]++
	d.mu.Unlock()
	if c := d.hangs[path]; c != nil {
		<-c
	}
	if err := d.fails[path]; err != nil {
		return ids.Pool{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = append(d.open, replica.PoolInfo{Path: path, ID: d.ids[path]})
	return d.ids[path], nil
}

func (d *disks) Pools() []replica.PoolInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

// TestPoolHangsAtStart: a known pool whose disk hangs keeps neither the node nor the other pools away; it is opened once, and used when
// its disk answers.
func TestPoolHangsAtStart(t *testing.T) {
	dir := t.TempDir()
	all := map[string]ids.Pool{"/a": ids.NewPool(), "/hangs": ids.NewPool(), "/c": ids.NewPool()}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pools"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := &disks{hangs: map[string]chan struct{}{"/hangs": make(chan struct{})}, ids: all, tries: map[string]int{}}
		p := newPools(dir, d, slog.New(slog.DiscardHandler))
		start := time.Now()
		if err := p.openAll([]string{"/a"}); err != nil || time.Since(start) != poolWait || len(d.Pools()) != 2 {
			t.Fatal(err, time.Since(start), d.Pools())
		}
		if m := p.missing(); len(m) != 1 || m[0].Path != "/hangs" || !errors.Is(m[0].Err, errOpening) {
			t.Fatalf("%+v", m)
		}
		if _, err := p.add("/hangs"); !errors.Is(err, errOpening) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		came := 0
		var work sync.WaitGroup
		work.Go(func() { p.retry(ctx, func() { came++ }) })
		time.Sleep(time.Minute)
		synctest.Wait()
		if d.tries["/hangs"] != 1 || came != 0 {
			t.Fatal(d.tries, came)
		}
		close(d.hangs["/hangs"])
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(p.missing()) != 0 || len(d.Pools()) != 3 || came != 1 {
			t.Fatal(p.missing(), d.Pools(), came)
		}
		cancel()
		work.Wait()
		p.close()
	})
}

// TestPoolInUse: a start ends where a pool is another process's, and where a new one cannot be made; not where a known one is absent.
func TestPoolInUse(t *testing.T) {
	for _, c := range []struct {
		err   error
		known bool
		ends  bool
	}{{replica.ErrInUse, true, true}, {os.ErrNotExist, true, false}, {os.ErrNotExist, false, true}} {
		dir, d := t.TempDir(), &disks{fails: map[string]error{"/a": c.err}, tries: map[string]int{}}
		if c.known {
			if err := os.WriteFile(filepath.Join(dir, "pools"), []byte(`{"/a":"`+ids.NewPool().String()+`"}`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := newPools(dir, d, slog.New(slog.DiscardHandler))
		if err := p.openAll([]string{"/a"}); (err != nil) != c.ends || err != nil && !errors.Is(err, c.err) {
			t.Errorf("%+v: %v", c, err)
		}
		p.close()
	}
}
