//go:build !unix

package openai

import (
	"io"
	"os"
)

func createSpool(dir string) (*os.File, error) {
	return os.CreateTemp(dir, "assistant-body-*")
}

func closeSpool(file *os.File) {
	_ = file.Close()
	_ = os.Remove(file.Name())
}

// openSpool reads the file's first n bytes back: without mmap the file only keeps them out of memory while they
// arrive.
func openSpool(file *os.File, n int64) (bytes []byte, release func(), err error) {
	bytes = make([]byte, n)
	if _, err := file.ReadAt(bytes, 0); err != nil && err != io.EOF {
		return nil, nil, err
	}
	closeSpool(file)
	return bytes, func() {}, nil
}
