package transfer

import (
	"errors"
	"math"
	"os"
	"syscall"
)

// free is not asked for on Windows: a full disk shows when it is written.
func free(string) (int64, error) { return math.MaxInt64, nil }

// lock does nothing on Windows, where two processes must not share a store.
func lock(*os.File) error { return nil }

const errorDiskFull = syscall.Errno(112) // ERROR_DISK_FULL

func isFull(err error) bool { return errors.Is(err, errorDiskFull) }
