package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience is how long a guardian waits at most for the next leader, in part of the address's lifetime, which is renewed every
// third: the address is still there when it gives up.
func patience(lifetime time.Duration) time.Duration { return min(3*time.Second, lifetime*2/3) }

// Guardian is a second process, forked from this one, that keeps the connections of the virtual address when this one has died, until
// the next leader announces the address; see DESIGN.md. Its methods are for one owner.
type Guardian struct {
	pid   int
	page  []byte // shared with it: a ward
	ward  *ward
	files []int
	ended chan struct{}
	over  atomic.Bool // its end is wanted
}

// ward is what the guardian knows, in memory that both processes have. Both use the same descriptors.
type ward struct {
	armed    uint32 // 1: this node has the address, and what follows is right; set last, atomically
	virtual  uint32 // the address as it is in memory of a sockaddr_in
	ear      int32  // a packet socket that is readable when another node has announced the address; -1: there is none
	netlink  int32
	parent   uintptr
	patience unix.Timespec
	length   uintptr // of request
	request  [64]byte
	name     [16]byte
	death    unix.PollFd // of the process that is watched
	heard    unix.PollFd
	linger   unix.Linger
	length4  uint32 // of address
	address  [32]byte
}

// NewGuardian makes the guardian of an address with an interface. The earlier in the process's life the better: it keeps the memory that
// the process has now.
func NewGuardian(addr netip.Addr, lifetime time.Duration, log *slog.Logger) (g *Guardian, err error) {
	g = &Guardian{ended: make(chan struct{})}
	defer func() {
		if err != nil {
			g.free()
		}
	}()
	if g.page, err = unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS); err != nil {
		return nil, fmt.Errorf("memory for the guardian: %w", err)
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("a descriptor of this process: %w", err)
	}
	g.files = append(g.files, pidfd)
	nl, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("a netlink socket: %w", err)
	}
	g.files = append(g.files, nl)
	if err := unix.Connect(nl, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("a netlink socket: %w", err)
	}
	four := addr.As4()
	g.ward = (*ward)(unsafe.Pointer(&g.page[0]))
	*g.ward = ward{virtual: binary.NativeEndian.Uint32(four[:]), ear: -1, netlink: int32(nl), parent: uintptr(os.Getpid()),
		patience: unix.NsecToTimespec(patience(lifetime).Nanoseconds()), death: unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN},
		heard: unix.PollFd{Events: unix.POLLIN}, linger: unix.Linger{Onoff: 1}}
	copy(g.ward.name[:], "pmsapp-guardian")
	if err := g.fork(); err != nil {
		return nil, err
	}
	go g.wait(log)
	return g, nil
}

// fork makes the process, with all signals blocked for good: it ends when its parent has, however that is asked for.
func (g *Guardian) fork() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return fmt.Errorf("blocking signals: %w", err)
	}
	pid, errno := forkGuardian(unsafe.Pointer(g.ward))
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err != nil {
		return fmt.Errorf("unblocking signals: %w", err)
	}
	if errno != 0 {
		return fmt.Errorf("making the guardian: %w", errno)
	}
	g.pid = int(pid)
	return nil
}

// wait waits for its end, and tells if that was not wanted.
func (g *Guardian) wait(log *slog.Logger) {
	defer close(g.ended)
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(g.pid, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if !g.over.Load() {
			log.Warn("the guardian of the virtual address has ended: should this process die, clients of shares find the next leader some seconds later",
				"signal", status.Signal().String(), "err", err)
		}
		return
	}
}

// arm has it act for the address, which is on the interface now. Unless that is so already, what others have announced before
// does not count.
func (g *Guardian) arm(c Config) error {
	if g == nil || g.ward.armed == 1 {
		return nil
	}
	link, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return fmt.Errorf("interface %s: %w", c.Interface, err)
	}
	ear, err := listenForOthers(c.Addr, link.Index)
	if err != nil {
		return err
	}
	g.ward.ear, g.ward.heard.Fd = int32(ear), int32(ear)
	g.ward.length = uintptr(copy(g.ward.request[:], deleteAddress(c.Addr, c.Prefix, link.Index)))
	atomic.StoreUint32(&g.ward.armed, 1)
	return nil
}

// disarm has it do nothing.
func (g *Guardian) disarm() {
	if g == nil || g.ward.armed == 0 {
		return
	}
	atomic.StoreUint32(&g.ward.armed, 0)
	unix.Close(int(g.ward.ear))
}

// Close ends the guardian and waits for that.
func (g *Guardian) Close() {
	if g == nil {
		return
	}
	g.disarm()
	g.over.Store(true)
	select {
	case <-g.ended: // its number may be another's
	default:
		unix.Kill(g.pid, unix.SIGKILL)
		<-g.ended
	}
	g.free()
}

func (g *Guardian) free() {
	for _, fd := range g.files {
		unix.Close(fd)
	}
	if g.page != nil {
		unix.Munmap(g.page)
	}
}

// listenForOthers opens a packet socket on which nothing comes but ARP of others that say that they have an address (RFC 826: the
// sender's protocol address).
func listenForOthers(addr netip.Addr, index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("listening for who announces the address: %w", err)
	}
	four := addr.As4()
	const sender = 14 // its offset in the ARP packet
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: sender},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: binary.BigEndian.Uint32(four[:]), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listening for who announces the address: %w", err)
	}
	return fd, nil
}

// deleteAddress makes the netlink request (rtnetlink(7), RTM_DELADDR) that takes an address from an interface.
func deleteAddress(addr netip.Addr, prefix, index int) []byte {
	four := addr.As4()
	b := make([]byte, unix.SizeofNlMsghdr, 64)
	binary.NativeEndian.PutUint16(b[4:], unix.RTM_DELADDR)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	b = append(b, unix.AF_INET, byte(prefix), 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	for _, kind := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS} {
		b = binary.NativeEndian.AppendUint16(b, 8)
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = append(b, four[:]...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}
