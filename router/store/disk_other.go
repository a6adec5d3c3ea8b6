//go:build !linux && !darwin && !windows

package store

// diskSpace is not known here.
func diskSpace(string) (free, total int64, err error) { return 0, 0, nil }
