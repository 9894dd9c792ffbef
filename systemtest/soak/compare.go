package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// compare stops the cluster and compares the replicas, byte by byte. Those on devices have no files: it is a scrub that compares them.
func (s *soak) compare(ctx context.Context) error {
	st, err := s.settled(ctx)
	if err != nil {
		return err
	}
	v := st.Volumes[0]
	if len(s.cfg.Devices) > 0 || s.cfg.Raw {
		x, err := s.scrub(ctx)
		if err == nil && (x.Mended != 0 || x.Unreadable != 0 || x.Differing != 0) {
			err = fmt.Errorf("REPLICAS DIFFER, or cannot be read: %+v", x)
		}
		return err
	}
	if err := s.cluster.Client().ShutdownCluster(ctx); err != nil {
		return fmt.Errorf("stopping the cluster: %w", err)
	}
	until := time.Now().Add(30 * time.Second)
	for _, n := range s.cluster.Nodes {
		for n.Running() {
			if time.Now().After(until) {
				return fmt.Errorf("%s does not end", n.Name)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	var files []string
	for _, r := range v.Replicas {
		files = append(files, filepath.Join(r.Pool, "replicas", v.ID, "data"))
	}
	for _, f := range files[1:] {
		if err := same(files[0], f); err != nil {
			return err
		}
	}
	s.say("the %d replicas are the same, byte by byte", len(files))
	return nil
}

func same(a, b string) error {
	f, err := os.Open(a)
	if err != nil {
		return err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return err
	}
	defer g.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; {
		n, errA := io.ReadFull(f, x)
		m, errB := io.ReadFull(g, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return fmt.Errorf("REPLICAS DIFFER: %s and %s within %d bytes from %d on", a, b, max(n, m), off)
		}
		off += int64(n)
		switch {
		case errors.Is(errA, io.EOF) || errors.Is(errA, io.ErrUnexpectedEOF):
			return nil
		case errA != nil || errB != nil:
			return errors.Join(errA, errB)
		}
	}
}
