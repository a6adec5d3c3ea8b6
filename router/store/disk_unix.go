//go:build linux || darwin

package store

import "golang.org/x/sys/unix"

// diskSpace returns the bytes that are free for this user, and all, where dir is.
func diskSpace(dir string) (free, total int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, err
	}
	return int64(fs.Bavail) * int64(fs.Bsize), int64(fs.Blocks) * int64(fs.Bsize), nil
}
