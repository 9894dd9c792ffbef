package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// someStore makes a catalog file with a tree of several levels.
func someStore(t testing.TB) []byte {
	path := filepath.Join(t.TempDir(), "db")
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 400; i += 40 {
		var logs []*raft.Log
		for k := i; k < i+40; k++ {
			logs = append(logs, &raft.Log{Index: k, Term: 1, Data: fmt.Append(nil, k, make([]byte, 300)), AppendedAt: time.Unix(1, 0)})
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Set([]byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	s.close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tryStore opens a file as a node does at its start; that this returns at all is what is tested.
func tryStore(t testing.TB, b []byte) error {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(path)
	if err != nil {
		return err
	}
	var l raft.Log
	for i := uint64(1); i <= 400; i++ {
		s.GetLog(i, &l)
	}
	return s.close()
}

func TestDamagedStore(t *testing.T) {
	good := someStore(t)
	if err := tryStore(t, good); err != nil {
		t.Fatal("a good file:", err)
	}
	for cut := len(good) - 1; cut > 0; cut -= len(good) / 23 {
		if err := tryStore(t, good[:cut]); err == nil && cut < len(good)/2 {
			t.Errorf("cut to %d of %d: opened", cut, len(good))
		}
	}
	// Each page but the metas' is overwritten, as by another program.
	for page := 2; page < len(good)/4096; page++ {
		b := append([]byte(nil), good...)
		for i := page * 4096; i < (page+1)*4096; i++ {
			b[i] = byte(i*7 + i>>8)
		}
		if err := tryStore(t, b); err != nil {
			t.Log(page, err)
		}
	}
}

func FuzzStore(f *testing.F) {
	good := someStore(f)
	f.Add(uint32(0), []byte("x"))
	f.Add(uint32(16), []byte{1, 2, 3, 4})
	f.Add(uint32(3*4096+10), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	for page := 2; page < len(good)/4096; page += 16 {
		f.Add(uint32(page*4096+8), []byte{1, 0, 9, 0})
		f.Add(uint32(page*4096+16), []byte{1, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	}
	f.Fuzz(func(t *testing.T, at uint32, with []byte) {
		b := append([]byte(nil), good...)
		copy(b[int(at)%len(b):], with)
		tryStore(t, b)
	})
}
