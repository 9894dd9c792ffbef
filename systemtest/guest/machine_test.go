package guest

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmsapp/appliance/local"
)

//go:embed init.sh
var initScript []byte

// machine is a guest.
type machine struct {
	t       *testing.T
	name    string
	address string
	shared  string // the directory that the guest has as /host
	console string // the file of its console
}

// newMachine boots a guest and waits until it takes commands. n is 1 or more.
func newMachine(t *testing.T, img image, n int) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, name: fmt.Sprintf("guest%d", n), address: fmt.Sprintf("10.77.0.%d", 100+n), shared: filepath.Join(dir, "host"), console: filepath.Join(dir, "console")}
	if err := os.Mkdir(m.shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.shared, "init"), initScript, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(m.shared, "inside"), "pmsapp/systemtest/guest/inside")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building what runs inside: %v: %s", err, out)
	}
	tap := fmt.Sprintf("t%d", n)
	sh(t, "ip tuntap add %[1]s mode tap vnet_hdr\nip link set %[1]s master br0 up", tap)
	console, err := os.Create(m.console)
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cmd := exec.Command(img.kernel, "mem=768M", "umid="+m.name, "uml_dir="+filepath.Join(dir, "uml"), "hostfs="+m.shared,
		"ubd0="+filepath.Join(dir, "root.cow")+","+img.root, "root=/dev/ubda", "rw", "init=/sbin/guest-boot", "con=null", "con0=null,fd:1", "quiet", "mitigations=off",
		fmt.Sprintf("vec0:transport=tap,ifname=%s,depth=128,gro=1,mac=52:54:00:77:00:%02x", tap, n), "guest.name="+m.name, "guest.addr="+m.address)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Env = append(os.Environ(), "TMPDIR=/dev/shm") // the guest's memory is a file there
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			m.report()
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	if err := local.Wait(t.Context(), m.name+" to take commands", time.Minute, func(ctx context.Context) (bool, error) {
		select {
		case <-ended:
			return false, fmt.Errorf("%s ended", m.name)
		default:
		}
		_, err := m.try(ctx, "true", io.Discard)
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

// report says what the guest's kernel said.
func (m *machine) report() {
	b, err := os.ReadFile(m.console)
	if err != nil {
		m.t.Log(err)
	}
	m.t.Logf("%s, console:\n%s", m.name, tail(string(b), 20))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var log strings.Builder
	m.try(ctx, "dmesg | tail -n 60", &log)
	m.t.Logf("%s, kernel:\n%s", m.name, log.String())
}

// try runs a command of the shell in the guest; what it prints goes to out. A command that fails is an error.
func (m *machine) try(ctx context.Context, text string, out io.Writer) (code int, err error) {
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+m.address+":7000/run", strings.NewReader(text))
	if err != nil {
		return -1, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return -1, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(out, resp.Body); err != nil {
		return -1, err
	}
	if code, err = strconv.Atoi(resp.Trailer.Get("Exit")); err != nil {
		return -1, fmt.Errorf("no exit status of %q: %w", text, err)
	}
	if code != 0 {
		return code, fmt.Errorf("%q: exit status %d", text, code)
	}
	return 0, nil
}

// run runs a command, which must succeed within a limit, and returns what it printed.
func (m *machine) run(limit time.Duration, format string, args ...any) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), limit)
	defer cancel()
	var out strings.Builder
	if _, err := m.try(ctx, fmt.Sprintf(format, args...), &out); err != nil {
		m.t.Fatalf("%s: %v: %s", m.name, err, tail(out.String(), 60))
	}
	return out.String()
}

// load is a program of folder inside that runs until it is told to stop.
type load struct {
	m    *machine
	what string
	done chan struct{}
	code int
	err  error

	mu     sync.Mutex
	text   strings.Builder
	events []event
	counts map[string]int64
}

// event is what a load says: when something was completed, and for how many seconds nothing had been.
type event struct {
	At    time.Time
	Stood float64
}

// start starts a load. name is unique on the machine.
func (m *machine) start(name, format string, args ...any) *load {
	l := &load{m: m, what: name, done: make(chan struct{})}
	r, w := io.Pipe()
	go func() {
		defer close(l.done)
		l.follow(r)
	}()
	go func() {
		l.code, l.err = m.try(m.t.Context(), fmt.Sprintf("echo $$ >/run/%s.pid; exec /host/inside %s", name, fmt.Sprintf(format, args...)), w)
		w.Close()
	}()
	return l
}

// fio has fio write a file directly, at a rate at which it outlasts some failovers, and verify all that it wrote, three times. The error
// comes when it has ended.
func (m *machine) fio(dir string) <-chan error {
	ended := make(chan error, 1)
	go func() {
		var out strings.Builder
		_, err := m.try(m.t.Context(), fmt.Sprintf(`fio --name=verified --directory=%s --size=16m --loops=3 --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=psync \
	--rate=1m --verify=crc32c --verify_fatal=1 --clocksource=cpu 2>&1`, dir), &out)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, tail(out.String(), 20))
		}
		ended <- err
	}()
	return ended
}

// follow takes in what the load prints.
func (l *load) follow(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var e struct {
			event
			Done map[string]int64
		}
		l.mu.Lock()
		switch err := json.Unmarshal(lines.Bytes(), &e); {
		case err != nil:
			fmt.Fprintln(&l.text, lines.Text())
		case e.Done != nil:
			l.counts = e.Done
		default:
			l.events = append(l.events, e.event)
		}
		l.mu.Unlock()
	}
}

// alive fails the test if the load has ended, as it does when something is wrong.
func (l *load) alive() {
	l.m.t.Helper()
	select {
	case <-l.done:
		l.m.t.Fatalf("%s, %s ended: %v: %s", l.m.name, l.what, l.err, l.text.String())
	default:
	}
}

// stop ends the load, which then compares all that it wrote, and returns what it counted.
func (l *load) stop() map[string]int64 {
	l.m.t.Helper()
	l.alive()
	l.m.run(10*time.Second, "kill $(cat /run/%s.pid)", l.what)
	select {
	case <-l.done:
	case <-time.After(2 * time.Minute):
		l.m.t.Fatalf("%s, %s does not end", l.m.name, l.what)
	}
	if l.err != nil || l.counts == nil {
		l.m.t.Fatalf("%s, %s: %v: %s", l.m.name, l.what, l.err, l.text.String())
	}
	return l.counts
}

// longest is the load's longest standstill that ended after a moment.
func (l *load) longest(since time.Time) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.At.After(since) {
			longest = max(longest, time.Duration(e.Stood*float64(time.Second)))
		}
	}
	return longest
}

// last is when the load was last known to complete something.
func (l *load) last() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == 0 {
		return time.Time{}
	}
	return l.events[len(l.events)-1].At
}

// wait waits until a command succeeds in the guest.
func (m *machine) wait(what string, limit time.Duration, text string) {
	m.t.Helper()
	var out strings.Builder
	if err := local.Wait(m.t.Context(), what, limit, func(ctx context.Context) (bool, error) {
		out.Reset()
		code, err := m.try(ctx, text, &out)
		if code > 0 {
			return false, nil
		}
		return err == nil, err
	}); err != nil {
		m.t.Fatalf("%s: %v: %s", m.name, err, out.String())
	}
}

// settleTime is how long after a leader's death a load may not have noticed it yet.
const settleTime = 5 * time.Second

// goOn waits until every load has completed something when a leader has been dead for a while.
func goOn(t *testing.T, loads []*load, since time.Time) {
	t.Helper()
	for _, l := range loads {
		if err := local.Wait(t.Context(), l.m.name+", "+l.what+" to go on", 2*time.Minute, func(context.Context) (bool, error) {
			l.alive()
			return l.last().Sub(since) > settleTime, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// standstill is the longest of all loads after a moment.
func standstill(loads []*load, since time.Time) (longest time.Duration) {
	for _, l := range loads {
		longest = max(longest, l.longest(since))
	}
	return longest
}

func summary(stalls []time.Duration) string {
	s := slices.Sorted(slices.Values(stalls))
	return fmt.Sprintf("%d leaders died; the hosts stood still for %v (median) and %v (at most)", len(s),
		((s[(len(s)-1)/2] + s[len(s)/2]) / 2).Round(10*time.Millisecond), s[len(s)-1].Round(10*time.Millisecond))
}
