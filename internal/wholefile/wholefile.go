// Package wholefile writes files that are whole whenever they are read.
package wholefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Replace puts b in place of a file, with mode 0600, and makes its directory if that is missing (0700): after a crash it is the old
// one or the new one.
func Replace(path string, b []byte) error {
	dir, name := filepath.Split(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, name+".*.new")
	if err != nil {
		return err
	}
	_, err = temp.Write(b)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temp.Name()) // the first error is the one to tell
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
