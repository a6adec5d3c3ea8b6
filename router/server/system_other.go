//go:build !unix

package server

import (
	"math"
	"net"
	"syscall"
)

// openFiles returns how many files the process may have open: there is no bound.
func openFiles() int { return math.MaxInt }

// hasUnread reports whether a connection has bytes that were not read yet: it is not known.
func hasUnread(net.Conn) bool { return false }

// private has a socket be its user's alone as soon as it has a path: not here.
func private(_, _ string, _ syscall.RawConn) error { return nil }
