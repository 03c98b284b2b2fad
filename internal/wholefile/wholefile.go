// Package wholefile writes files that are whole whenever they are read.
package wholefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// private is the mode of new files.
const private = 0o600

// Replace puts b in place of a file, with mode 0600, and makes its directory if that is missing (0700): after a crash it is the old
// one or the new one.
func Replace(path string, b []byte) error { return write(path, b, private, os.Rename) }

// Create makes a file of b, with mode 0600, and its directory if that is missing (0700). If there is a file of that name, that stays, and the error
// is [fs.ErrExist].
func Create(path string, b []byte) error { return write(path, b, private, renameNew) }

// Rewrite puts b in place of a file that is there, which keeps its mode. If it is a symbolic link, what it leads to is replaced.
func Rewrite(path string, b []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return write(path, b, info.Mode().Perm(), os.Rename)
}

// renameNew gives a file a name that none has. Where the file system has no links, somebody else may take the name in between.
func renameNew(from, to string) error {
	err := os.Link(from, to)
	switch {
	case err == nil:
		return os.Remove(from)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return &fs.PathError{Op: "create", Path: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to)
}

func write(path string, b []byte, mode fs.FileMode, rename func(from, to string) error) error {
	dir, name := filepath.Split(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, name+".*.new")
	if err != nil {
		return err
	}
	_, err = temp.Write(b)
	if mode != private { // as CreateTemp makes it
		err = errors.Join(err, temp.Chmod(mode))
	}
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = rename(temp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temp.Name()) // the first error is the one to tell
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
