package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockOffset is of the byte that is locked: behind those that SQLite locks, from
// 0x40000000 on, and where a database of less than 1 GiB has nothing.
const lockOffset = 0x40000000 + 1024

// lockFile keeps other processes from using the file at path, by whatever name. The
// lock is of the open file, so that SQLite, which opens and closes others of the
// same, does not lose it. It is let go of by closing what it returns, which must
// come after SQLite's: to close any takes the locks of a process.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: lockOffset, Len: 1})
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		err = errInUse
	default: // a file system without such locks: the lock of the name is left
		err = nil
	}
	return nil, errors.Join(err, f.Close())
}
