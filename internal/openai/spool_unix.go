//go:build unix

package openai

import (
	"os"
	"syscall"
)

// createSpool makes a file without a name: it is gone with us, whatever happens.
func createSpool(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, "assistant-body-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

func closeSpool(file *os.File) { _ = file.Close() }

// openSpool maps the file's first n bytes. release ends the mapping; the file is closed already then.
func openSpool(file *os.File, n int64) (bytes []byte, release func(), err error) {
	if n == 0 {
		return nil, func() { closeSpool(file) }, nil
	}
	bytes, err = syscall.Mmap(int(file.Fd()), 0, int(n), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	closeSpool(file)
	return bytes, func() { _ = syscall.Munmap(bytes) }, nil
}
