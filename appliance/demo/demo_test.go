package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a disk that stands still when told to.
type memory struct {
	mu   sync.Mutex
	b    []byte
	hold chan struct{}
}

func (m *memory) wait() {
	m.mu.Lock()
	h := m.hold
	m.mu.Unlock()
	time.Sleep(time.Millisecond)
	if h != nil {
		<-h
	}
}
func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.b[off:])
	return nil
}
func (m *memory) WriteAt(_ context.Context, p []byte, off int64) error {
	m.wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.b[off:], p)
	return nil
}

func TestLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{b: make([]byte, 1<<20)}
		l := newLoad(m, 4096, 100, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.run(ctx, time.Minute) }()
		time.Sleep(time.Second)
		killed := time.Now()
		m.mu.Lock()
		m.hold = make(chan struct{})
		m.mu.Unlock()
		time.Sleep(2 * time.Second)
		m.mu.Lock()
		close(m.hold)
		m.hold = nil
		m.mu.Unlock()
		time.Sleep(time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if g := l.standstill(killed); g < 1900*time.Millisecond || g > 2100*time.Millisecond {
			t.Fatal(g)
		}
		if n, err := l.verify(t.Context()); err != nil || n != 96 {
			t.Fatal(n, err)
		}
		m.b[4096+7*blockSize+100]++
		if _, err := l.verify(t.Context()); !errors.Is(err, errLost) || !strings.Contains(err.Error(), "block 7 ") {
			t.Fatal(err)
		}
	})
}

func TestImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	data := bytes.Repeat([]byte("0123456"), 300000)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m := &memory{b: bytes.Repeat([]byte{0xff}, 4<<20)}
	i, err := openImage(path, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	none := func(int64) {}
	if err := i.copyTo(t.Context(), m, none); err != nil || !bytes.Equal(m.b[:len(data)], data) {
		t.Fatal(err)
	}
	if err := i.compare(t.Context(), m, none); err != nil {
		t.Fatal(err)
	}
	m.b[len(data)-1]++
	if err := i.compare(t.Context(), m, none); !errors.Is(err, errDiffers) {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		path string
		room int64
		want string
	}{{path, 1 << 20, "has room for 1048576"}, {filepath.Dir(path), 1 << 30, "no plain file"}, {path + "x", 1, "no such file"}} {
		if _, err := openImage(bad.path, bad.room); !errors.Is(err, errImage) || !strings.Contains(err.Error(), bad.want) {
			t.Error(err)
		}
	}
}
