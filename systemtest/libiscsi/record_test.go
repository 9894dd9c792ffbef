package libiscsi

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"pmsapp/internal/block/blocktest"
	"pmsapp/systemtest/lunserver"
)

// maxRecord is how much of what an initiator says is kept of a session.
const maxRecord = 12 << 10

// shortest is less than a test says that does more than to look whether the unit is there.
const shortest = 1200

// tap passes connections on to a target and keeps the beginning of what the initiators say.
type tap struct {
	net.Listener
	to net.Addr

	mu   sync.Mutex
	said [][]byte
	work sync.WaitGroup
	open sync.WaitGroup // connections
}

func (p *tap) run() {
	for {
		c, err := p.Accept()
		if err != nil {
			return
		}
		p.open.Go(func() { p.pass(c) })
	}
}

func (p *tap) pass(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", p.to.String())
	if err != nil {
		return
	}
	defer s.Close()
	p.work.Go(func() {
		io.Copy(c, s)
		c.Close()
	})
	var said []byte
	b := make([]byte, 64<<10)
	for {
		n, err := c.Read(b)
		said = append(said, b[:min(n, maxRecord-len(said))]...)
		if n > 0 {
			s.Write(b[:n])
		}
		if err != nil {
			break
		}
	}
	p.mu.Lock()
	p.said = append(p.said, said)
	p.mu.Unlock()
}

// TestRecord records what initiators say to a target, as seeds for fuzzing: RECORD names a directory for them (internal/iscsi/iscsitest/testdata/sessions).
// Sessions of which all was kept, one for each test of the suite that is chosen, and one of QEMU's.
func TestRecord(t *testing.T) {
	dir := os.Getenv("RECORD")
	if dir == "" {
		t.Skip("RECORD is not set")
	}
	s := lunserver.Start(t, blocktest.NewMemory(64<<20, 512))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{Listener: l, to: s.Addr}
	p.work.Go(p.run)
	url := strings.Replace(s.URL(), s.Addr.String(), l.Addr().String(), 1)
	keep := func(name string) {
		p.open.Wait() // the program has ended
		p.mu.Lock()
		defer p.mu.Unlock()
		longest := []byte{}
		for _, b := range p.said {
			if len(b) < maxRecord && len(b) > len(longest) && len(b) > shortest {
				longest = b
			}
		}
		if p.said = nil; len(longest) > 0 {
			if err := os.WriteFile(filepath.Join(dir, name+".bin"), longest, 0o644); err != nil {
				t.Error(err)
			}
		}
	}
	match := regexp.MustCompile(`^(CompareAndWrite|ExtendedCopy|GetLBAStatus|Mandatory|ModeSense6|PrinReadKeys|PrinServiceactionRange|PrinReportCapabilities|` +
		`ProutRegister|ProutPreempt|ReadCapacity16|Reserve6|TestUnitReady|Unmap|WriteSame16|iSCSIcmdsn|iSCSIdatasn|` +
		`iSCSITMF|iSCSISendTargets|iSCSINop|ReceiveCopyResults|OrWrite|Verify10|StartStopUnit)\.`)
	if _, err := Run(t.Context(), url, Options{Match: match, Each: func(r Result) { keep(r.Test) }}); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-io", "-f", "raw", "-t", "none", "-d", "unmap", "-c", "write -P 0x11 0 512", "-c", "discard 1M 4k", "-c", "write -z 2M 1M",
		"-c", "read -P 0x11 0 512", "-c", "flush", url)
	keep("qemu-io")
	l.Close()
	s.Close()
	p.work.Wait()
}
