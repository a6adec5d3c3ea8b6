package server

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A socket that a killed process left behind is replaced; one in use, and a file, are not.
func TestASocketIsReplaced(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes there")
	}
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	left.SetUnlinkOnClose(false)
	must(t, left.Close())
	l, err := listenSocket(path)
	must(t, err)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	if _, err := listenSocket(path); err == nil || !strings.Contains(err.Error(), "of a running process") {
		t.Errorf("a second server at the same path: %v", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first is not reached any more: %v", err)
	} else {
		conn.Close()
	}
	l.Close()
	must(t, os.WriteFile(path, []byte("mine"), 0o600))
	if _, err := listenSocket(path); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file in its place: %v", err)
	}
}
