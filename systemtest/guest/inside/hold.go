package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

type holdConfig struct {
	file   string
	kind   string // flock or fcntl
	shared bool
	try    bool // not wait for it
}

// runHold locks a file, tells so, and holds the lock until ctx ends.
func runHold(ctx context.Context, cfg holdConfig, out io.Writer) (err error) {
	f, err := os.OpenFile(cfg.file, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	p := newPulse(out)
	if err := cfg.lock(f); err != nil {
		return fmt.Errorf("locking %s: %w", cfg.file, err)
	}
	p.beat("held")
	if cfg.try {
		return p.end()
	}
	<-ctx.Done()
	return p.end()
}

func (cfg holdConfig) lock(f *os.File) error {
	switch cfg.kind {
	case "flock":
		how := syscall.LOCK_EX
		if cfg.shared {
			how = syscall.LOCK_SH
		}
		if cfg.try {
			how |= syscall.LOCK_NB
		}
		return syscall.Flock(int(f.Fd()), how)
	case "fcntl":
		l := syscall.Flock_t{Type: syscall.F_WRLCK}
		if cfg.shared {
			l.Type = syscall.F_RDLCK
		}
		wait := syscall.F_SETLKW
		if cfg.try {
			wait = syscall.F_SETLK
		}
		return syscall.FcntlFlock(f.Fd(), wait, &l)
	}
	return errUsage
}
