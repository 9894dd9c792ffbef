package initiator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"pmsapp/internal/iscsi"
)

// DiskConfig is what a Disk needs.
type DiskConfig struct {
	Portals   []string // host:port, in the order in which they are tried
	Initiator string   // iSCSI name of this end
	Target    string   // iSCSI name of the target, the same at all portals
	LUN       int
	ISID      iscsi.ISID        // the same at all portals; random if zero
	Own, Peer iscsi.Credentials // CHAP, as in Config
	Wish      iscsi.Wish        // iscsi.DefaultWish if zero
	Timeouts  Timeouts          // HostTimeouts if zero
	Queue     int               // commands under way; 1024 if 0
	MaxLen    int               // bytes of one READ or WRITE, longer ones are split; 1 MiB if 0
	Log       *slog.Logger
	Hooks     Hooks
	Dial      func(ctx context.Context, network, address string) (net.Conn, error)
}

// Hooks tell a program what happens to its I/O. Each may be nil. They are called by any goroutine and must not block.
type Hooks struct {
	// Connected is called when a session with a portal begins, Lost when it has died or could not be made.
	Connected func(portal string)
	Lost      func(portal string, err error)
	// Retried is called for each command that ended without success and is tried again.
	Retried func(portal string, why error)
	// Completed is called for each command that succeeded, with the time when it was first tried.
	Completed func(op Op, began time.Time)
}

// Op is what a command of a Disk does.
type Op uint8

const (
	OpRead Op = iota + 1
	OpWrite
	OpZero
	OpFlush
	OpOther
)

// ErrRange is returned for a range outside the disk or not aligned to its blocks.
var ErrRange = errors.New("initiator: outside the disk or not aligned to its blocks")

// Disk is a logical unit behind one or more portals, for programs. Its methods block, and are safe for use by many
// goroutines. A command whose path dies, or whose portal says that it cannot serve now, is tried again until its context
// ends: a method returns nil, a *StatusError, ErrRange, or the error of the context together with the last failure.
//
// A write that is tried again may have been executed before. That is harmless as long as nobody else writes the same
// blocks meanwhile: callers that write overlapping blocks at the same time get either.
type Disk struct {
	cfg     DiskConfig
	geo     Geometry
	maxSame int64 // bytes of one WRITE SAME
	paths   *paths
	jobs    sync.Pool // of *job
}

// job is a command of a Disk.
type job struct {
	cmd   Command
	cdb   [16]byte
	ended chan struct{} // has room for one
}

// OpenDisk connects to the first portal that serves the logical unit and reads its size. It tries until ctx ends.
func OpenDisk(ctx context.Context, cfg DiskConfig) (*Disk, error) {
	if len(cfg.Portals) == 0 || cfg.LUN < 0 || cfg.LUN > 16383 {
		return nil, fmt.Errorf("no portals, or LUN %d: %w", cfg.LUN, errConfig)
	}
	if cfg.MaxLen == 0 {
		cfg.MaxLen = 1 << 20
	}
	session := Config{Initiator: cfg.Initiator, ISID: cfg.ISID, Target: cfg.Target, Own: cfg.Own, Peer: cfg.Peer, Wish: cfg.Wish,
		Timeouts: cfg.Timeouts, Queue: cfg.Queue, Log: cfg.Log, Dial: cfg.Dial}
	session, err := session.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Disk{cfg: cfg, paths: newPaths(session, cfg.Portals, cfg.Hooks)}
	d.jobs.New = func() any {
		j := &job{ended: make(chan struct{}, 1)}
		j.cmd.Done = func(*Command) { j.ended <- struct{}{} }
		return j
	}
	if err := d.identify(ctx); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// identify reads the size and the limits of the logical unit.
func (d *Disk) identify(ctx context.Context) error {
	buf := make([]byte, 32)
	n, err := d.fetch(ctx, cdbReadCapacity16(len(buf)), buf)
	var refused *StatusError
	switch {
	case err == nil:
		d.geo, err = parseCapacity16(buf[:n])
	case errors.As(err, &refused) && refused.Sense.Key == KeyIllegalRequest:
		if n, err = d.fetch(ctx, []byte{opReadCapacity10, 0, 0, 0, 0, 0, 0, 0, 0, 0}, buf[:8]); err == nil {
			d.geo, err = parseCapacity10(buf[:n])
		}
	}
	if err != nil {
		return fmt.Errorf("reading the capacity: %w", err)
	}
	if d.cfg.MaxLen%d.geo.Block != 0 {
		return fmt.Errorf("MaxLen %d with blocks of %d bytes: %w", d.cfg.MaxLen, d.geo.Block, errConfig)
	}
	d.maxSame = 32 << 20
	limits, err := d.Inquiry(ctx, true, 0xb0)
	if err == nil && len(limits) >= 44 {
		if most := binary.BigEndian.Uint64(limits[36:]); most > 0 && most < uint64(d.maxSame/int64(d.geo.Block)) {
			d.maxSame = int64(most) * int64(d.geo.Block)
		}
	} else if err != nil && !errors.Is(err, ErrSCSI) {
		return fmt.Errorf("reading the limits: %w", err)
	}
	return nil
}

// Geometry returns the size as it was when the disk was opened.
func (d *Disk) Geometry() Geometry { return d.geo }

// Portal returns the portal that commands go to at present, or an empty text.
func (d *Disk) Portal() string { return d.paths.current() }

// Close logs out and lets all sessions go. Commands under way end with ErrClosed.
func (d *Disk) Close() { d.paths.close() }

// ReadAt fills p from the disk at off; both are multiples of the logical block.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.transfer(ctx, OpRead, p, off)
}

// WriteAt stores p on the disk at off; both are multiples of the logical block.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64) error {
	return d.transfer(ctx, OpWrite, p, off)
}

func (d *Disk) transfer(ctx context.Context, op Op, p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), d.cfg.MaxLen)
		j := d.jobs.Get().(*job)
		code := byte(opRead16)
		if op == OpRead {
			j.cmd.DataIn = p[:n]
		} else {
			code = opWrite16
			j.cmd.DataOut = p[:n]
		}
		setCDB16(&j.cdb, code, 0, uint64(off)/uint64(d.geo.Block), uint32(n/d.geo.Block))
		j.cmd.CDB = j.cdb[:]
		err := d.run(ctx, op, j)
		short := err == nil && (j.cmd.Received != len(j.cmd.DataIn) || j.cmd.Residual != 0)
		d.putJob(j)
		if short {
			return fmt.Errorf("fewer bytes than asked for, and good status: %w", ErrProtocol)
		}
		if err != nil {
			return err
		}
		p = p[n:]
		off += int64(n)
	}
	return nil
}

// Zero makes n bytes at off read as zeros, freeing space where the target can (WRITE SAME with UNMAP, or else writes).
func (d *Disk) Zero(ctx context.Context, off, n int64) error {
	if err := d.check(off, n); err != nil {
		return err
	}
	block := make([]byte, d.geo.Block)
	for n > 0 {
		part := min(n, d.maxSame)
		j := d.jobs.Get().(*job)
		setCDB16(&j.cdb, opWriteSame16, 0x08, uint64(off)/uint64(d.geo.Block), uint32(part/int64(d.geo.Block)))
		j.cmd.CDB, j.cmd.DataOut = j.cdb[:], block
		err := d.run(ctx, OpZero, j)
		d.putJob(j)
		var refused *StatusError
		if errors.As(err, &refused) && refused.Sense.Key == KeyIllegalRequest {
			return d.writeZeros(ctx, off, n)
		}
		if err != nil {
			return err
		}
		off += part
		n -= part
	}
	return nil
}

func (d *Disk) writeZeros(ctx context.Context, off, n int64) error {
	zeros := make([]byte, min(n, int64(d.cfg.MaxLen)))
	for n > 0 {
		part := min(n, int64(len(zeros)))
		if err := d.transfer(ctx, OpWrite, zeros[:part], off); err != nil {
			return err
		}
		off += part
		n -= part
	}
	return nil
}

// Flush returns when everything written before is durable (SYNCHRONIZE CACHE).
func (d *Disk) Flush(ctx context.Context) error {
	j := d.jobs.Get().(*job)
	defer d.putJob(j)
	j.cdb = [16]byte{opSynchronize10}
	j.cmd.CDB = j.cdb[:10]
	return d.run(ctx, OpFlush, j)
}

// Inquiry returns the answer to INQUIRY: standard data, or a VPD page.
func (d *Disk) Inquiry(ctx context.Context, vpd bool, page byte) ([]byte, error) {
	buf := make([]byte, 255)
	n, err := d.fetch(ctx, cdbInquiry(vpd, page, len(buf)), buf)
	return buf[:n], err
}

// Command runs any command, with data in at most one direction, and returns how many bytes of in were filled. One that is tried
// again may have been executed before: it had better have the same effect twice.
func (d *Disk) Command(ctx context.Context, cdb, out, in []byte) (int, error) {
	j := d.jobs.Get().(*job)
	defer d.putJob(j)
	j.cmd.CDB, j.cmd.DataOut, j.cmd.DataIn = cdb, out, in
	if err := d.run(ctx, OpOther, j); err != nil {
		return 0, err
	}
	return j.cmd.Received, nil
}

// fetch runs a command that has an answer of up to len(buf) bytes.
func (d *Disk) fetch(ctx context.Context, cdb, buf []byte) (int, error) {
	j := d.jobs.Get().(*job)
	defer d.putJob(j)
	j.cmd.CDB, j.cmd.DataIn = cdb, buf
	if err := d.run(ctx, OpOther, j); err != nil {
		return 0, err
	}
	return j.cmd.Received, nil
}

func (d *Disk) check(off, n int64) error {
	b := int64(d.geo.Block)
	if off < 0 || n < 0 || off > d.geo.Size || n > d.geo.Size-off || off%b != 0 || n%b != 0 {
		return fmt.Errorf("%d bytes at %d of %d: %w", n, off, d.geo.Size, ErrRange)
	}
	return nil
}

func (d *Disk) putJob(j *job) {
	j.cmd.CDB, j.cmd.DataIn, j.cmd.DataOut = nil, nil, nil
	d.jobs.Put(j)
}

// run executes a command on whatever portal serves, until it succeeds, or is refused for good, or ctx ends.
func (d *Disk) run(ctx context.Context, op Op, j *job) error {
	began := time.Now()
	var left, pauses, met int // portals left, pauses made, unit attentions met in a row
	j.cmd.LUN = LUN(d.cfg.LUN)
	for {
		p, err := d.paths.get(ctx)
		if err != nil {
			return err
		}
		if err := d.attempt(ctx, p, j); err != nil {
			return err
		}
		verdict := decide(&j.cmd)
		if verdict == decideDone {
			if d.cfg.Hooks.Completed != nil {
				d.cfg.Hooks.Completed(op, began)
			}
			return nil
		}
		why := j.failure()
		if verdict == decideFail {
			return why
		}
		if d.cfg.Hooks.Retried != nil {
			d.cfg.Hooks.Retried(p.portal, why)
		}
		pause := true
		switch verdict {
		case decideAgain:
			met++
			pause = met%attentions == 0
		case decideElse:
			d.paths.leave(p, why)
			left++
			pause = left%len(d.cfg.Portals) == 0 // all were tried
		}
		if pause {
			if err := sleep(ctx, backoff(pauses)); err != nil {
				return fmt.Errorf("%w; the last attempt: %w", err, why)
			}
			pauses++
		}
	}
}

// attempt runs the command once. If ctx ends meanwhile, it returns only when the buffers are the caller's again.
func (d *Disk) attempt(ctx context.Context, p route, j *job) error {
	p.session.Submit(&j.cmd)
	select {
	case <-j.ended:
		return nil
	case <-ctx.Done():
	}
	// A few words with the target take the buffers back without harm to other commands; if it does not answer, the
	// session has to go.
	abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := p.session.Abort(abort, &j.cmd); err != nil {
		p.session.Close()
	}
	<-j.ended
	return ctx.Err()
}

// failure is the error of a command that did not succeed.
func (j *job) failure() error {
	if j.cmd.Err != nil {
		return j.cmd.Err
	}
	return &StatusError{Op: j.cmd.CDB[0], Status: j.cmd.Status, Sense: ParseSense(j.cmd.Sense)}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
