//go:build !unix

package router

import (
	"math"
	"syscall"
)

// openFiles returns how many files the process may have open: there is no bound.
func openFiles() int { return math.MaxInt }

// private has a socket be its user's alone as soon as it has a path: not here.
func private(_, _ string, _ syscall.RawConn) error { return nil }
