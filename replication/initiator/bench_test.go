package initiator

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"pmsapp/internal/iscsi"
	"pmsapp/internal/iscsi/iscsitest"
)

// instant answers every command at once and allocates nothing, so that what is measured is the initiator's.
func instant(c *iscsitest.Conn) {
	w := iscsi.NewWriter(c.Conn)
	data := make([]byte, 64<<10)
	sn := c.StatSN()
	for {
		h, err := c.R.Next()
		if err != nil || c.R.ReadData(data[:h.DataLen()]) != nil {
			return
		}
		var a iscsi.BHS
		a.Init(iscsi.OpSCSIResponse, iscsi.FlagFinal)
		var in []byte
		if h.Has(iscsi.FlagRead) {
			a.Init(iscsi.OpDataIn, iscsi.FlagFinal|iscsi.FlagStatus)
			a.SetTTT(iscsi.NoTag)
			in = data[:h.EDTL()]
		}
		a.SetITT(h.ITT())
		a.SetStatSN(sn)
		sn++
		a.SetExpCmdSN(h.CmdSN() + 1)
		a.SetMaxCmdSN(h.CmdSN() + 128)
		if w.Write(&a, nil, in) != nil || c.R.Buffered() < iscsi.BHSLen && w.Flush() != nil {
			return
		}
	}
}

// flow runs n commands at a queue depth, submitted from Done.
func flow(s *Session, depth, n int, read bool) {
	var mu sync.Mutex
	left := n
	var all sync.WaitGroup
	all.Add(depth)
	for i := range depth {
		buf := make([]byte, 4096)
		cdb := make([]byte, 16)
		binary.BigEndian.PutUint32(cdb[4:], uint32(i))
		c := &Command{CDB: cdb}
		if read {
			c.DataIn = buf
		} else {
			c.DataOut = buf
		}
		c.Done = func(c *Command) {
			mu.Lock()
			left--
			more := left >= depth
			mu.Unlock()
			if !more || c.Err != nil {
				all.Done()
				return
			}
			s.Submit(c)
		}
		s.Submit(c)
	}
	all.Wait()
}

// TestNoAllocation counts allocations of a whole session in steady state, its goroutines included.
func TestNoAllocation(t *testing.T) {
	s := mustDial(t, config(iscsitest.Listen(t, iscsitest.Config{}, instant)))
	for _, read := range []bool{false, true} {
		flow(s, 32, 2000, read) // slots and lists grow
		r := testing.Benchmark(func(b *testing.B) { b.ReportAllocs(); flow(s, 32, max(b.N, 64), read) })
		if r.N > 2000 && r.AllocsPerOp() > 0 {
			t.Errorf("read %v: %d allocations for each command", read, r.AllocsPerOp())
		}
	}
}

func BenchmarkSession(b *testing.B) {
	for _, c := range []struct {
		name  string
		depth int
		read  bool
	}{{"write/QD1", 1, false}, {"write/QD32", 32, false}, {"read/QD1", 1, true}, {"read/QD32", 32, true}} {
		b.Run(c.name, func(b *testing.B) {
			s := mustDial(b, config(iscsitest.Listen(b, iscsitest.Config{}, instant)))
			b.ReportAllocs()
			b.ResetTimer()
			flow(s, c.depth, max(b.N, c.depth), c.read)
		})
	}
}

// BenchmarkLoopback is the round trip without iSCSI, to compare with.
func BenchmarkLoopback(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 4096+48)
		for {
			if _, err := io.ReadFull(c, buf); err != nil {
				return
			}
			c.Write(buf[:48])
		}
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 4096+48)
	for b.Loop() {
		c.Write(buf)
		io.ReadFull(c, buf[:48])
	}
}
