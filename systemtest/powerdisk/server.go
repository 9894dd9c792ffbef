package powerdisk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// longestHang bounds how long a request hangs: a test that has died with threads that wait for the disk is not gone before they go on.
const longestHang = 2 * time.Minute

// server answers the kernel, one request after the other, so that what a flush covers is what was answered before it.
type server struct {
	mount string
	fd    int
	image *os.File

	mu     sync.Mutex // guards what follows
	medium *medium
	faults faults
	fails  bool      // the power fails at the next flush that has something to flush
	frozen bool      // the power is failing: nothing is done or answered any more
	off    bool      // it has failed
	handle uint64    // that of the last open
	dead   uint64    // requests of this handle and of older ones fail: whoever had them died with the power
	held   []request // what hangs
	late   *time.Timer
	counts Counts
}

// Counts is what a disk has done since its start.
type Counts struct {
	Reads   int  `json:"reads"`
	Writes  int  `json:"writes"`
	Flushes int  `json:"flushes"`
	Pending int  `json:"pending"` // writes that are not flushed
	Held    int  `json:"held"`    // requests that hang
	Frozen  bool `json:"frozen"`  // the power is failing
	Hits    int  `json:"hits"`    // of faults, since they were set
	Bad     int  `json:"bad"`     // ranges whose faults last until they are written
}

// newServer makes the image in a directory and mounts the file beside it.
func newServer(dir string, size int64, seed uint64) (*server, error) {
	s := &server{mount: filepath.Join(dir, mountName), fd: -1}
	image, err := os.OpenFile(filepath.Join(dir, "image"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s.image, s.medium = image, newMedium(image, size, seed)
	if err = image.Truncate(size); err == nil {
		err = os.MkdirAll(s.mount, 0o700)
	}
	if err == nil {
		s.fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		err = unix.Mount("powerdisk", s.mount, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", s.fd))
	}
	if err != nil {
		image.Close()
		return nil, fmt.Errorf("mounting %s: %w", s.mount, err)
	}
	go s.loop() // ends with the process
	return s, nil
}

// close makes the power fail and unmounts, also what others still have open. The loop ends with the process: until then it answers them.
func (s *server) close() error {
	s.die()
	return unix.Unmount(s.mount, unix.MNT_DETACH)
}

func (s *server) loop() {
	b := make([]byte, maxWrite+pageSize)
	for {
		n, err := unix.Read(s.fd, b)
		switch {
		case errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOENT):
			continue
		case err != nil:
			return
		}
		r, err := parseRequest(b[:n])
		if err != nil {
			return
		}
		s.mu.Lock()
		s.answer(r)
		s.mu.Unlock()
	}
}

// answer answers a request, or holds it. Called with mu.
func (s *server) answer(r request) {
	switch r.op {
	case opForget, opBatchForget, opInterrupt, opDestroy:
		return
	}
	body, err := s.do(r)
	if errors.Is(err, errHeld) {
		r.body = bytes.Clone(r.body)
		if s.held = append(s.held, r); s.late == nil {
			s.late = time.AfterFunc(longestHang, s.die)
		}
		return
	}
	unix.Write(s.fd, reply(r.unique, body, err)) // an error says that whoever asked is gone
}

// die makes the power fail for good.
func (s *server) die() {
	s.mu.Lock()
	s.off = true
	s.mu.Unlock()
	s.release()
}

// release answers what hangs, as things are now.
func (s *server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.held
	s.held = nil
	if s.late != nil {
		s.late.Stop()
		s.late = nil
	}
	for _, r := range list {
		s.answer(r)
	}
}

// errHeld is returned for a request that is not answered now.
var errHeld = errors.New("held")

func (s *server) do(r request) ([]byte, error) {
	switch r.op {
	case opInit:
		return initReply(r.body), nil
	case opLookup:
		if r.node != rootNode || string(r.body) != fileName+"\x00" {
			return nil, syscall.ENOENT
		}
		out := make([]byte, 40)
		le.PutUint64(out, fileNode)
		return append(out, attributes(fileNode, s.medium.size)...), nil
	case opGetattr, opSetattr:
		return append(make([]byte, 16), attributes(r.node, s.medium.size)...), nil
	case opOpen:
		s.handle++
		out := make([]byte, 16)
		le.PutUint64(out, s.handle)
		le.PutUint32(out[8:], openDirectIO)
		return out, nil
	case opRead, opWrite, opFallocate, opFsync:
		return s.transfer(r)
	case opStatfs:
		return make([]byte, 80), nil
	case opFlush, opRelease: // of a close, which makes nothing durable
		return nil, nil
	}
	return nil, syscall.ENOSYS
}

// transfer does what concerns the medium.
func (s *server) transfer(r request) (out []byte, err error) {
	handle, off, n := r.span()
	if r.op == opFsync && s.fails && len(s.medium.writes) > 0 {
		s.frozen = true
	}
	switch {
	case s.off || handle <= s.dead:
		return nil, syscall.EIO
	case s.frozen:
		return nil, errHeld
	case r.op == opRead && off >= s.medium.size:
		return nil, nil
	case r.op == opRead:
		n = min(n, s.medium.size-off)
	}
	if !s.medium.in(off, n) {
		return nil, syscall.EINVAL
	}
	if f := s.faults.next(opOf(r.op), off, n); f != nil {
		if f.Hang {
			return nil, errHeld
		}
		if r.op == opFsync {
			_, err = s.medium.lose(f.Ranges)
		}
		return nil, errors.Join(err, syscall.EIO)
	}
	switch r.op {
	case opRead:
		s.counts.Reads++
		out = make([]byte, n)
		return out, s.medium.read(out, off)
	case opWrite:
		s.counts.Writes++
		out = make([]byte, 8)
		le.PutUint32(out, uint32(n))
		s.faults.written(off, n)
		return out, s.medium.write(bytes.Clone(r.body[writeIn:writeIn+n]), off)
	case opFallocate:
		s.counts.Writes++
		switch mode := le.Uint32(r.body[24:]); mode {
		case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE:
			s.faults.written(off, n)
			return nil, s.medium.zero(off, n)
		}
		return nil, syscall.EOPNOTSUPP
	}
	s.counts.Flushes++
	s.medium.flush()
	return nil, nil
}

func opOf(op uint32) Op {
	switch op {
	case opRead:
		return Read
	case opFsync:
		return Flush
	}
	return Write
}
