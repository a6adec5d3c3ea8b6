// Package testnet owns a network in memory, for tests of what talks over HTTP:
// nothing of it leaves the process, so that it works under testing/synctest,
// where time passes only when everybody waits.
package testnet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
)

// A Net is a network of its own. The zero value is an empty one; it is safe for
// concurrent use.
type Net struct {
	// Loopback makes it the machine's loopback interface, for programs outside this process.
	Loopback bool

	mu    sync.Mutex
	ports map[string]*listener // by address
	last  int                  // the last port that port 0 was
}

// firstPort is above the ports that tests choose.
const firstPort = 20_000

// Listen is net.Listen on this network. Port 0 takes a port that was never used.
func (n *Net) Listen(network, addr string) (net.Listener, error) {
	if n.Loopback {
		return net.Listen(network, addr)
	}
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.Port == 0 {
		a.Port = n.next()
	}
	addr = a.String()
	if n.ports == nil {
		n.ports = map[string]*listener{}
	}
	if n.ports[addr] != nil {
		return nil, fmt.Errorf("listen %s: address already in use", addr)
	}
	l := &listener{addr: *a, conns: make(chan net.Conn), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.ports, addr)
		close(l.done)
	})
	n.ports[addr] = l
	return l, nil
}

// Dial is net.Dialer.DialContext on this network. It waits until the listener accepts.
func (n *Net) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if n.Loopback {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	n.mu.Lock()
	l := n.ports[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	}
	near, far := net.Pipe()
	select {
	case l.conns <- addressed{far, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &l.addr}:
		return near, nil
	case <-l.done:
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Once returns a client of this network that keeps no connections.
func (n *Net) Once() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}}
}

// Client returns a client of this network. The caller closes its idle connections.
func (n *Net) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.Dial, MaxIdleConnsPerHost: 64}}
}

// Serve starts a server of h, after change, and returns its URL. It ends with the test.
func (n *Net) Serve(t testing.TB, h http.Handler, change ...func(*http.Server)) (url string) {
	t.Helper()
	l, err := n.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	for _, f := range change {
		f(srv)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// Free returns an address of this network for one listener. On the loopback interface only
// port 0 is sure to be free.
func (n *Net) Free() string {
	if n.Loopback {
		return "127.0.0.1:0"
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.next()))
}

// next returns a port that was never used. n.mu is held.
func (n *Net) next() int {
	n.last = max(n.last, firstPort) + 1
	return n.last
}

type listener struct {
	addr  net.TCPAddr
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { l.close(); return nil }
func (l *listener) Addr() net.Addr { return &l.addr }

// addressed is the server's end of a connection.
type addressed struct {
	net.Conn
	remote, local net.Addr
}

func (c addressed) RemoteAddr() net.Addr { return c.remote }
func (c addressed) LocalAddr() net.Addr  { return c.local }
