package launcher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// listening returns the sockets, as /proc/pid/fd names them, that listen on the address's port. The kernel is asked for
// listening sockets only: its tables in /proc hold every connection, and take tens of milliseconds to read with thousands
// of them. They are the fall-back where the question is not understood.
func listening(addr netip.AddrPort) (map[string]bool, error) {
	found := map[string]bool{}
	for _, family := range []uint8{syscall.AF_INET, syscall.AF_INET6} {
		if err := askDiag(family, addr.Port(), found); err != nil {
			return listeningByTable(addr)
		}
	}
	return found, nil
}

// Of linux/inet_diag.h and linux/sock_diag.h.
const (
	netlinkSockDiag  = 4
	sockDiagByFamily = 20
	tcpListen        = 10
	requestSize      = 56 // struct inet_diag_req_v2
	messageSize      = 72 // struct inet_diag_msg
	portOffset       = 4  // of id.idiag_sport in it, big endian
	inodeOffset      = 68 // of idiag_inode
)

// askDiag adds the listening TCP sockets of a family and port to found, by sock_diag(7).
func askDiag(family uint8, port uint16, found map[string]bool) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkSockDiag)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	if err := syscall.Sendto(fd, diagRequest(family), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := syscall.Recvfrom(fd, buf, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			switch {
			case m.Header.Type == syscall.NLMSG_DONE:
				return nil
			case m.Header.Type == syscall.NLMSG_ERROR:
				return errors.New("sock_diag is refused")
			case len(m.Data) >= messageSize && binary.BigEndian.Uint16(m.Data[portOffset:]) == port:
				found[socketName(binary.NativeEndian.Uint32(m.Data[inodeOffset:]))] = true
			}
		}
	}
}

func socketName(inode uint32) string { return fmt.Sprintf("socket:[%d]", inode) }

func diagRequest(family uint8) []byte {
	const headerSize = syscall.SizeofNlMsghdr
	b := make([]byte, headerSize+requestSize)
	binary.NativeEndian.PutUint32(b[0:], headerSize+requestSize)
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	b[headerSize], b[headerSize+1] = family, syscall.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[headerSize+4:], 1<<tcpListen)
	return b
}

// listeningByTable does the same by the kernel's tables of connections.
func listeningByTable(addr netip.AddrPort) (map[string]bool, error) {
	found := map[string]bool{}
	port := fmt.Sprintf(":%04X", addr.Port())
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		b, err := os.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6 here
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			const listen = "0A"
			if len(f) > 9 && f[3] == listen && strings.HasSuffix(f[1], port) {
				if inode, err := strconv.ParseUint(f[9], 10, 32); err == nil {
					found[socketName(uint32(inode))] = true
				}
			}
		}
	}
	return found, nil
}
