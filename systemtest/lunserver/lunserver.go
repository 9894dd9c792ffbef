// Package lunserver serves a block device as a LUN within a process: the target and the device server without a cluster.
package lunserver

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"pmsapp/internal/block"
	"pmsapp/internal/ids"
	"pmsapp/internal/iscsi"
	"pmsapp/target"
	"pmsapp/target/scsi"
	"pmsapp/target/scsi/scsitest"
)

// Name is the name of the server's target.
const Name = "iqn.2026-11.app.pmsapp:test"

// Server is a target with one LUN, 1.
type Server struct {
	Target *scsi.Target
	LU     *scsi.LU
	Server *target.Server
	Addr   net.Addr
	// Auth is what Credentials answers; to be set before the first login.
	Auth iscsi.Auth
	// User and Args are put into the URL: "name%secret@", "?key=value".
	User, Args string
}

// Start serves dev on a free port of 127.0.0.1 until the test ends.
func Start(t testing.TB, dev block.Device, options ...func(*target.Config)) *Server {
	t.Helper()
	s, err := New("127.0.0.1:0", dev, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// New serves dev on an address.
func New(addr string, dev block.Device, options ...func(*target.Config)) (*Server, error) {
	s := &Server{Target: scsi.NewTarget(Name, 1), LU: scsi.NewLU(ids.NewVolume())}
	if err := s.LU.Serve(dev, &scsitest.Keeper{TargetPorts: []uint16{1}}); err != nil {
		return nil, err
	}
	if err := s.Target.SetLUNs(map[uint16]*scsi.LU{1: s.LU}); err != nil {
		return nil, err
	}
	cfg := target.Config{Provider: s}
	for _, o := range options {
		o(&cfg)
	}
	var err error
	if s.Server, err = target.New(cfg); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s.Addr = l.Addr()
	go s.Server.Serve(l) // ends with Close
	return s, nil
}

// Close drops all sessions.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	s.Server.Shutdown(ctx)
}

// URL is the LUN's, as libiscsi's tools and QEMU's want it.
func (s *Server) URL() string {
	return fmt.Sprintf("iscsi://%s%s/%s/1%s", s.User, s.Addr, Name, s.Args)
}

// Credentials implements target.Provider.
func (s *Server) Credentials(l target.Login) (iscsi.Auth, error) {
	if !l.Discovery && l.Target != Name {
		return iscsi.Auth{}, target.ErrNoTarget
	}
	return s.Auth, nil
}

// Open implements target.Provider.
func (s *Server) Open(l target.Login) (target.Opened, error) {
	return target.Opened{Nexus: s.Target.Nexus(l)}, nil
}

// Discover implements target.Provider.
func (s *Server) Discover(l target.Login) []target.Discovered {
	return []target.Discovered{{Name: Name, Portals: []target.Portal{{Addr: l.Portal, Group: 1}}}}
}
