package launcher

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestListeningFindsTheSocket(t *testing.T) {
	for _, network := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", network)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addr := netip.MustParseAddrPort(l.Addr().String())
		byDiag, err := listening(addr)
		if err != nil || len(byDiag) != 1 {
			t.Fatalf("listening(%s) = %v, %v, want one socket", addr, byDiag, err)
		}
		byTable, err := listeningByTable(addr)
		if diff := cmp.Diff(byTable, byDiag); err != nil || diff != "" {
			t.Errorf("sock_diag and /proc differ (%v):\n%s", err, diff)
		}
		if !holds(os.Getpid(), byDiag) {
			t.Error("we do not hold our own socket")
		}
	}
}

func TestListeningSeesNoConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l.Close()
	if got, err := listening(netip.MustParseAddrPort(l.Addr().String())); err != nil || len(got) != 0 {
		t.Errorf("listening = %v, %v, want nothing: only a connection is left", got, err)
	}
}
