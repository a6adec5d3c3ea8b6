package server_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"switchyard/router"
)

func TestWithoutLocalPort(t *testing.T) {
	at := func(addr string) net.Addr { a, _ := net.ResolveTCPAddr("tcp", addr); return a }
	reset := &net.OpError{Op: "read", Net: "tcp", Source: at("127.0.0.1:53422"), Addr: at("127.0.0.1:4646"), Err: syscall.ECONNRESET}
	for _, c := range []struct {
		err  error
		want string
	}{
		{reset, "read tcp 127.0.0.1:4646: " + syscall.ECONNRESET.Error()},
		{&net.OpError{Op: "write", Net: "tcp6", Source: at("[::1]:53422"), Addr: at("[::1]:4646"), Err: syscall.EPIPE}, "write tcp6 [::1]:4646: " + syscall.EPIPE.Error()},
		{errors.New("lookup nomad on 127.0.0.53:53: read udp 127.0.0.1:39481->127.0.0.53:53: i/o timeout"), "lookup nomad on 127.0.0.53:53: read udp 127.0.0.53:53: i/o timeout"},
		{&net.OpError{Op: "dial", Net: "tcp", Addr: at("127.0.0.1:4646"), Err: syscall.ECONNREFUSED}, "dial tcp 127.0.0.1:4646: " + syscall.ECONNREFUSED.Error()},
		{io.EOF, "EOF"},
	} {
		if got := router.WithoutLocalPort(c.err); got.Error() != c.want || !errors.Is(got, c.err) {
			t.Errorf("WithoutLocalPort(%v) = %v, want %s", c.err, got, c.want)
		}
	}
	if !errors.Is(router.WithoutLocalPort(reset), syscall.ECONNRESET) {
		t.Error("the cause is lost")
	}
}
