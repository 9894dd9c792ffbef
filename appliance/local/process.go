package local

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Process is a daemon that was started.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of Wait; set before done is closed
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended; Err says how then.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is nil for exit status 0. It is called after Done.
func (p *Process) Err() error { return p.err }

// Signal sends a signal; a process that has ended is none to complain about.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling process %d: %w", p.PID(), err)
	}
	return nil
}

// starter starts processes that die with this one. The kernel sends the signal when the thread that made the child ends
// (prctl(2), PR_SET_PDEATHSIG), so all are made by one thread, kept for that.
type starter struct {
	jobs chan func()
	work sync.WaitGroup
}

func newStarter() *starter {
	s := &starter{jobs: make(chan func())}
	s.work.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		for f := range s.jobs {
			f()
		}
	})
	return s
}

// close ends the thread; the children that are left die with it.
func (s *starter) close() {
	close(s.jobs)
	s.work.Wait()
}

// start starts a program whose output goes to the end of a file.
func (s *starter) start(bin string, args []string, log string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	defer out.Close() // the child has its own
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = out, out
	// A process group of its own: Ctrl-C is for the owner, who stops the nodes in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	result := make(chan error, 1)
	s.jobs <- func() { result <- cmd.Start() }
	if err := <-result; err != nil {
		return nil, fmt.Errorf("starting %s: %w", bin, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the process, which Close ends
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}
