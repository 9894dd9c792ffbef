package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// exitTrailer has a command's exit status, after all that it printed.
const exitTrailer = "Exit"

// serve runs the commands that the test posts, each in a shell of its own, until ctx ends. What a command prints is the
// answer's body; its exit status follows as a trailer. A caller that goes away takes its command with it.
func serve(ctx context.Context, addr string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", runCommand)
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving commands: %w", err)
	}
	return nil
}

func runCommand(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Trailer", exitTrailer)
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	cmd := exec.CommandContext(r.Context(), "/bin/bash", "-c", string(text))
	cmd.Stdout = flushing{w}
	cmd.Stderr = cmd.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a daemon that the command leaves behind keeps its output open
	err = cmd.Run()
	code := -1
	if cmd.ProcessState != nil {
		code = cmd.ProcessState.ExitCode()
	}
	if err != nil && code <= 0 && !errors.Is(err, exec.ErrWaitDelay) {
		fmt.Fprintln(w, "inside:", err)
		code = 127
	}
	w.Header().Set(exitTrailer, strconv.Itoa(code))
}

// flushing sends each write at once: the test follows a load as it goes.
type flushing struct{ w http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		return n, fmt.Errorf("sending output: %w", err)
	}
	if err := http.NewResponseController(f.w).Flush(); err != nil {
		return n, fmt.Errorf("sending output: %w", err)
	}
	return n, nil
}
