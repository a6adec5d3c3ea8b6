package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
)

// SocketPrefix begins the address of a Unix socket; its path follows.
const SocketPrefix = "unix:"

// listenAdmin opens the operators' listener.
func listenAdmin(at string, listen func(network, addr string) (net.Listener, error)) (net.Listener, error) {
	path, ok := strings.CutPrefix(at, SocketPrefix)
	if !ok {
		return listen("tcp", at)
	}
	return listenSocket(path)
}

// listenSocket makes a Unix socket that only this user, and root, can connect to. It replaces
// a socket that an ended process left behind.
func listenSocket(path string) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s exists and is not a socket: choose another path", path)
	default:
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("%s is the socket of a running process: stop that first, or choose another path", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := (&net.ListenConfig{Control: private}).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
