package powerdisk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

// mountName is the directory in which the disk appears as a file, below the disk's own.
const mountName = "fuse"

// order is what the test asks of the server, one JSON value after the other, each with an answer.
type order struct {
	Do     string  `json:"do"`
	Faults []Fault `json:"faults,omitempty"`
}

// The orders.
const (
	doCount  = "count"
	doFreeze = "freeze" // hold everything
	doAim    = "aim"    // hold everything from the next flush on that has something to flush
	doCut    = "cut"    // lose what was not flushed; everything fails
	doOn     = "on"     // the power is back
	doFail   = "fail"   // set the faults; what hung goes on
)

type answer struct {
	Error  string `json:"error,omitempty"`
	Loss   Loss   `json:"loss"`
	Counts Counts `json:"counts"`
}

// ServeConfig says what disk to serve.
type ServeConfig struct {
	Dir  string // for its image and its mount
	Size int64  // bytes
	Seed uint64
	// Mount is where a file system of the disk may be mounted and Device its loop device; both are taken away at the end.
	Mount string
}

// Serve serves a disk until in ends, which it does with the test, however that ends. Nothing of it is left mounted then.
func Serve(cfg ServeConfig, in io.Reader, out io.Writer) error {
	s, err := newServer(cfg.Dir, cfg.Size, cfg.Seed)
	if err != nil {
		return err
	}
	enc, dec := json.NewEncoder(out), json.NewDecoder(in)
	err = enc.Encode(answer{})
	for err == nil {
		var o order
		if err = dec.Decode(&o); err == nil {
			err = enc.Encode(s.obey(o))
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	s.die()
	if exec.Command("mountpoint", "-q", cfg.Mount).Run() == nil {
		exec.Command("umount", "-l", cfg.Mount).Run()
	}
	if dev, ferr := exec.Command("losetup", "-n", "-O", "NAME", "-j", filepath.Join(cfg.Dir, mountName, fileName)).Output(); ferr == nil && len(dev) > 0 {
		exec.Command("losetup", "-d", strings.TrimSpace(string(dev))).Run()
	}
	return errors.Join(err, s.close())
}

func (s *server) obey(o order) (a answer) {
	if o.Do == doFail || o.Do == doCut || o.Do == doOn {
		defer s.release()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	switch o.Do {
	case doCount:
	case doFreeze:
		s.frozen = true
	case doAim:
		s.fails = true
	case doCut:
		s.fails, s.frozen, s.off, s.faults = false, false, true, faults{}
		a.Loss, err = s.medium.lose(nil)
	case doOn:
		s.off, s.frozen, s.dead = false, false, s.handle
	case doFail:
		s.faults = faults{list: o.Faults}
	default:
		err = fmt.Errorf("no such order: %q", o.Do)
	}
	if err != nil {
		a.Error = err.Error()
	}
	a.Counts = s.counts
	a.Counts.Frozen = s.frozen
	a.Counts.Pending, a.Counts.Held, a.Counts.Hits, a.Counts.Bad = len(s.medium.writes), len(s.held), s.faults.hits, s.faults.bad()
	return a
}
