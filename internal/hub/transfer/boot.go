package transfer

import (
	"os"
	"strings"
)

// boot identifies the time since this machine was started; "" where that cannot be told.
func boot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
