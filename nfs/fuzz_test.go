package nfs_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"pmsapp/internal/ids"
	"pmsapp/internal/nfs3"
	"pmsapp/internal/nfsclient"
	"pmsapp/internal/sunrpc"
	"pmsapp/internal/xdr"
	"pmsapp/nfs"
	"pmsapp/nfs/memshare"
	"pmsapp/nfs/rpc"
)

// pipes gives a server connections in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// peer is a connection in memory from an address of the network.
type peer struct{ net.Conn }

func (peer) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1000} }

// fuzzed is a server to be fuzzed, with a root handle, a file's and a directory's.
func fuzzed(f *testing.F) (p *pipes, handles []nfs3.Handle) {
	p = &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	share, exports := memshare.New(8<<20), &memshare.Exports{}
	exports.Set(nfs.Export{Path: "/vol", ID: ids.Volume{1}, Share: share, Rules: []nfs.Rule{{Clients: everybody}}})
	srv, err := nfs.New(nfs.Config{Exports: exports, Ports: nfs.Ports{NFS: 1, Mount: 1, Portmap: 1},
		Limits: rpc.Limits{Connections: 1 << 16, PerClient: 1 << 16}}) // those that were closed may take a while to end
	if err != nil {
		f.Fatal(err)
	}
	go srv.Serve(p)
	f.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			f.Error(err)
		}
	})
	c := nfsclient.New(sunrpc.ClientConfig{Cred: sunrpc.Cred{Flavor: sunrpc.AuthSys}, Dial: func(context.Context) (net.Conn, error) { return p.dial(), nil }})
	defer c.Close()
	ctx := context.Background()
	root, _, err := c.Mount(ctx, "/vol")
	if err != nil {
		f.Fatal(err)
	}
	file, err := c.Create(ctx, nfs3.CreateArgs{Where: at(root, "file"), Attr: mode(0o644)})
	if err != nil {
		f.Fatal(err)
	}
	dir, err := c.Mkdir(ctx, root, "dir", mode(0o755))
	if err != nil {
		f.Fatal(err)
	}
	return p, []nfs3.Handle{root, file.File, dir.File}
}

func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.conns <- peer{b}
	return a
}

// exchange sends a record and reads the reply; nil if the connection is closed instead.
func exchange(t *testing.T, c net.Conn, record []byte) *xdr.Decoder {
	var e xdr.Encoder
	e.Uint32(sunrpc.Mark(len(record)))
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(append(e.B, record...)); err != nil {
		t.Fatal(err)
	}
	r := sunrpc.NewRecordReader(c, 2<<20)
	if _, err := r.Begin(); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		t.Fatal("no reply, and the connection stays:", err)
	}
	rec, err := r.Rest(func([]byte) int { return 0 }, func(int) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	return rec.Decoder()
}

// FuzzProcedures calls procedures with any arguments. Each call is answered, with results of the right form.
func FuzzProcedures(f *testing.F) {
	p, handles := fuzzed(f)
	mtime := nfs3.SetTime{How: nfs3.ToClientTime, Time: nfs3.Time{Seconds: 1}}
	for _, h := range handles {
		for proc, args := range map[uint8]nfs3.Args{
			nfs3.ProcGetattr: &nfs3.FileArgs{File: h}, nfs3.ProcReadlink: &nfs3.FileArgs{File: h}, nfs3.ProcFsstat: &nfs3.FileArgs{File: h},
			nfs3.ProcFsinfo: &nfs3.FileArgs{File: h}, nfs3.ProcPathconf: &nfs3.FileArgs{File: h},
			nfs3.ProcSetattr:     &nfs3.SetattrArgs{File: h, Attr: nfs3.SetAttr{Mode: ptr(uint32(1)), Size: ptr(uint64(9)), Mtime: mtime}, Guard: &nfs3.Time{}},
			nfs3.ProcLookup:      &nfs3.DirOp{Dir: h, Name: "file"},
			nfs3.ProcAccess:      &nfs3.AccessArgs{File: h, Access: 63},
			nfs3.ProcRead:        &nfs3.ReadArgs{File: h, Offset: 1, Count: 9},
			nfs3.ProcWrite:       &nfs3.WriteArgs{File: h, Offset: 1, Count: 3, Data: []byte("abc")},
			nfs3.ProcCreate:      &nfs3.CreateArgs{Where: at(h, "x"), How: nfs3.Guarded, Attr: mode(0o644)},
			nfs3.ProcMkdir:       &nfs3.MkdirArgs{Where: at(h, "x")},
			nfs3.ProcSymlink:     &nfs3.SymlinkArgs{Where: at(h, "x"), Text: "text"},
			nfs3.ProcMknod:       &nfs3.MknodArgs{Where: at(h, "x"), Type: nfs3.Block, Dev: [2]uint32{1, 2}},
			nfs3.ProcRemove:      &nfs3.DirOp{Dir: h, Name: "x"},
			nfs3.ProcRmdir:       &nfs3.DirOp{Dir: h, Name: "x"},
			nfs3.ProcRename:      &nfs3.RenameArgs{From: at(h, "x"), To: at(h, "y")},
			nfs3.ProcLink:        &nfs3.LinkArgs{File: h, To: at(h, "z")},
			nfs3.ProcReaddir:     &nfs3.ReaddirArgs{Dir: h, Count: 500},
			nfs3.ProcReaddirplus: &nfs3.ReaddirplusArgs{Dir: h, DirCount: 500, MaxCount: 900},
			nfs3.ProcCommit:      &nfs3.CommitArgs{File: h},
		} {
			var e xdr.Encoder
			args.Encode(&e)
			f.Add(proc, uint32(0), e.B)
			f.Add(proc, uint32(7), e.B[:e.Len()-1])
		}
	}
	c := p.dial()
	f.Cleanup(func() { c.Close() })
	f.Fuzz(func(t *testing.T, proc uint8, uid uint32, args []byte) {
		if len(args) > 4000 {
			return
		}
		var e xdr.Encoder
		h := sunrpc.Header{XID: uid, Prog: nfs3.Program, Vers: 3, Proc: uint32(proc), Cred: sunrpc.Cred{Flavor: sunrpc.AuthSys, UID: uid}}
		sunrpc.WriteCall(&e, h, "h")
		d := exchange(t, c, append(e.B, args...))
		if d == nil {
			t.Fatal("the connection was dropped")
		}
		var stat sunrpc.AcceptStat
		if _, err := sunrpc.ReadReply(d); errors.As(err, &stat) {
			if stat == sunrpc.SystemErr {
				t.Fatal(err)
			}
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if proc == 0 {
			return
		}
		var status nfs3.Status
		if err := nfsclient.ReadResult(uint32(proc), d); err != nil && (!errors.As(err, &status) || status == nfs3.ErrServerFault) {
			t.Fatal(err)
		}
	})
}

// FuzzCalls sends any records to all programs: each is answered, or ends its connection.
func FuzzCalls(f *testing.F) {
	p, handles := fuzzed(f)
	for _, h := range []sunrpc.Header{{Prog: nfs3.PortProgram, Vers: 2, Proc: 3}, {Prog: nfs3.PortProgram, Vers: 2, Proc: 4}, {Prog: nfs3.MountProgram, Vers: 3, Proc: 1},
		{Prog: nfs3.MountProgram, Vers: 3, Proc: 2}, {Prog: nfs3.MountProgram, Vers: 3, Proc: 3}, {Prog: nfs3.MountProgram, Vers: 3, Proc: 4},
		{Prog: nfs3.MountProgram, Vers: 3, Proc: 5}, {Prog: nfs3.Program, Vers: 3, Proc: 1}, {Prog: 1, Vers: 3}} {
		var e xdr.Encoder
		sunrpc.WriteCall(&e, h, "")
		switch {
		case h.Prog == nfs3.MountProgram && h.Proc%2 == 1:
			e.String("/vol")
		case h.Prog == nfs3.Program:
			e.Opaque(handles[0])
		default:
			for range 4 {
				e.Uint32(nfs3.Program)
			}
		}
		f.Add(e.B)
		f.Add(e.B[:e.Len()-3])
	}
	for proc := range uint32(5) {
		var e xdr.Encoder
		sunrpc.WriteCall(&e, sunrpc.Header{Prog: 100021, Vers: 4, Proc: proc, Cred: sunrpc.Cred{Flavor: sunrpc.AuthSys}}, "")
		lockCall{proc: proc, host: "h", owner: "o", pid: 1, off: 1, len: 2, exclusive: true}.encode(handles[1])(&e)
		f.Add(e.B)
	}
	var e xdr.Encoder
	sunrpc.WriteCall(&e, sunrpc.Header{Prog: 100024, Vers: 1, Proc: 6}, "")
	e.String("h")
	e.Uint32(3)
	f.Add(e.B)
	f.Fuzz(func(t *testing.T, record []byte) {
		if len(record) > 4000 {
			return
		}
		c := p.dial()
		defer c.Close()
		if d := exchange(t, c, record); d != nil {
			if _, err := sunrpc.ReadReply(d); errors.Is(err, sunrpc.ErrMessage) {
				t.Fatal("the answer is no reply")
			}
		}
	})
}
