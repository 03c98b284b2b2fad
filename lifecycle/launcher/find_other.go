//go:build !linux

package launcher

import (
	"errors"
	"net/netip"
	"os"
)

// Without /proc the marks cannot be read: what left its process group is not found.

func (p *Process) members() []int { return nil }

func marked(string, bool) []int { return nil }

func anyAlive([]int) bool { return false }

func groupOf(int) int { return 0 }

func groupMembers(int) []int { return nil }

// StartTime is when the process started; "" where that cannot be told.
func StartTime(int) string { return "" }

// Owner says who listens on a TCP address of this machine.
type Owner struct {
	Found bool // somebody does
	Ours  bool // it is the process asked about, or what it started
	PID   int  // who it is, if that could be told; else 0
}

// Listener tells who listens on the address. This system does not say.
func (p *Process) Listener(netip.AddrPort) (Owner, error) {
	return Owner{}, errors.ErrUnsupported
}

// HolderOf names the process that listens on the address, for messages.
func HolderOf(netip.AddrPort) string { return "another process" }

func self() (string, error) { return os.Executable() }
