//go:build !linux

package transfer

import "os"

func writeBack(*os.File, int64, int64) {}
