package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A wire is a listener in memory that is reached from any address. An error in
// its queue is what Accept fails with.
type wire struct {
	queue chan any // net.Conn or error
	done  chan struct{}
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case next := <-w.queue:
		if err, ok := next.(error); ok {
			return nil, err
		}
		return next.(net.Conn), nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error   { close(w.done); return nil }
func (w *wire) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// remote is a server's end of a connection from an address.
type remote struct {
	net.Conn
	addr net.Addr
}

func (r remote) RemoteAddr() net.Addr { return r.addr }

// A gated server has a gate before it, and answers 202 to what it read the
// whole of; /work only when work is closed.
type gated struct {
	t    *testing.T
	wire *wire
	gate *gate
	log  bytes.Buffer
	work chan struct{}
}

func newGated(t *testing.T, most int) *gated {
	s := &gated{t: t, wire: &wire{make(chan any), make(chan struct{})}, work: make(chan struct{})}
	s.gate = newGate(s.wire, "public", most, slog.New(slog.NewTextHandler(&s.log, nil)))
	srv := &http.Server{
		MaxHeaderBytes: publicHead,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			switch req.URL.Path {
			case "/signed":
				markProven(req.Context())
			case "/work":
				<-s.work
			case "/large":
				_, _ = w.Write(make([]byte, 1<<20))
				return
			}
			w.WriteHeader(http.StatusAccepted)
		}),
	}
	s.gate.guard(srv)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(s.gate)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return s
}

// dial connects from an address and sends text, of which the server may take less.
func (s *gated) dial(from, text string) net.Conn {
	s.t.Helper()
	near, far := net.Pipe()
	s.t.Cleanup(func() { _ = near.Close() })
	s.wire.queue <- remote{far, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	go func() { _, _ = io.WriteString(near, text) }()
	synctest.Wait()
	return near
}

// get has one request answered, and keeps the connection.
func (s *gated) get(from string) net.Conn {
	s.t.Helper()
	c := s.dial(from, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	s.answered(c)
	return c
}

func (s *gated) answered(c net.Conn) {
	s.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatalf("a request that is there as a whole gets no answer: %v", err)
	}
	if _, _ = io.Copy(io.Discard, resp.Body); resp.StatusCode != http.StatusAccepted {
		s.t.Errorf("it is answered %s", resp.Status)
	}
	synctest.Wait()
}

// open returns how many connections the gate has, of which address.
func (s *gated) open() (all int, of map[string]int) {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	of = map[string]int{}
	for c := range s.gate.open {
		of[c.at.Addr().String()]++
	}
	return len(s.gate.open), of
}

func isOpen(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	return err == nil || errors.As(err, &timeout) && timeout.Timeout()
}

// addr is another address for each number.
func addr(n int) string { return fmt.Sprintf("10.0.%d.%d:4000", n/250, n%250+1) }

// However many connections wait for their clients, and for whatever, those open
// are bounded, and a whole request is answered at once.
func TestWaitingConnectionsMakeRoom(t *testing.T) {
	const most = 12
	for name, hold := range map[string]func(*gated, string) net.Conn{
		"nothing sent": func(s *gated, from string) net.Conn { return s.dial(from, "") },
		"idle":         (*gated).get,
		"half a head":  func(s *gated, from string) net.Conn { return s.dial(from, "POST / HTTP/1.1\r\nHost: x\r\n") },
		"half a body": func(s *gated, from string) net.Conn {
			return s.dial(from, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
		},
		"half a chunk": func(s *gated, from string) net.Conn {
			return s.dial(from, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf")
		},
		"an answer unread": func(s *gated, from string) net.Conn { return s.dial(from, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n") },
	} {
		for by, from := range map[string]func(int) string{"one address": func(int) string { return addr(0) }, "many addresses": addr} {
			t.Run(name+" by "+by, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newGated(t, most)
					held := make([]net.Conn, 0, 40)
					for i := range cap(held) {
						held = append(held, hold(s, from(i)))
						time.Sleep(2 * time.Second)
						s.get("10.9.0.1:7") // from elsewhere
						s.get(from(i))      // and from the same address
						if all, of := s.open(); all > most || of["10.0.0.1"] > most/2+2 && strings.HasPrefix(by, "one") && name != "an answer unread" {
							t.Fatalf("%d are open, by address %v, want %d at the most and half of one", all, of, most)
						}
					}
					if isOpen(held[0]) || s.gate.evicted < 20 {
						t.Errorf("the first of 40 is open: %t; %d were closed", isOpen(held[0]), s.gate.evicted)
					}
					if lines := strings.Count(s.log.String(), "many connections are open"); lines < 1 || lines > 3 {
						t.Errorf("the log says so %d times in two minutes:\n%s", lines, s.log.String())
					}
				})
			})
		}
	}
}

// While few are open, nobody who waits is disturbed.
func TestFewConnectionsMayIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newGated(t, 12)
		var held []net.Conn
		for range 6 {
			held = append(held, s.get(addr(0)))
			time.Sleep(time.Minute)
		}
		for i, c := range held {
			if !isOpen(c) {
				t.Errorf("connection %d was closed", i)
			}
		}
		s.get(addr(1)) // more than half
		if isOpen(held[0]) || !isOpen(held[1]) {
			t.Error("of more than half the places, the one idle for longest is not the one that is closed")
		}
	})
}

// A request that is worked on is not closed for others: they wait until it is done.
func TestRequestsThatAreWorkedOnStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newGated(t, 4)
		var working []net.Conn
		for i, request := range []string{
			"GET /work HTTP/1.1\r\nHost: x\r\n\r\n", "POST /work HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
			"POST /work HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", "GET /work HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			working = append(working, s.dial(addr(i), request))
		}
		time.Sleep(time.Hour)
		next := s.dial(addr(9), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		for i, c := range working {
			if !isOpen(c) {
				t.Errorf("request %d was closed while it was worked on", i)
			}
		}
		close(s.work)
		for _, c := range working {
			s.answered(c)
		}
		s.answered(next)
	})
}

// The address with most waiting connections loses them first, be the others' older.
func TestTheGreatestHolderLosesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newGated(t, 12)
		var few []net.Conn
		for i := range 4 {
			few = append(few, s.get(addr(100+i)))
		}
		time.Sleep(time.Second)
		for i := range 100 {
			s.dial(fmt.Sprintf("[2001:db8::%x]:9", i), "") // one network
			s.dial(fmt.Sprintf("[::ffff:10.0.0.1]:%d", 1000+i), "")
		}
		if all, of := s.open(); all > 12 || of["2001:db8::"] > 6 || of["10.0.0.1"] > 6 {
			t.Errorf("%d are open, by address %v", all, of)
		}
		for i, c := range few {
			if !isOpen(c) {
				t.Errorf("connection %d, the only one of its address, was closed", i)
			}
		}
	})
}

// The connections of GitHub, or of whoever else has proven itself, outlast those of
// any number of strangers, be they more of one address, and older.
func TestWhoHasProvenItselfLosesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 12
		s := newGated(t, most)
		const signed = "POST /signed HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
		s.answered(s.dial(addr(900), signed))
		var held []net.Conn
		for range most/2 - 2 {
			c := s.dial(addr(900), signed)
			s.answered(c)
			held = append(held, c)
		}
		time.Sleep(time.Minute)
		for i := range 100 {
			s.dial(addr(i), "")
			s.get(addr(i))
		}
		for i, c := range held {
			if !isOpen(c) {
				t.Errorf("connection %d of the proven address was closed for a stranger's", i)
			}
		}
		for range most { // of it, too, half may wait
			s.dial(addr(900), "")
		}
		if all, of := s.open(); all > most || of["10.0.3.151"] > most/2 {
			t.Errorf("%d are open, by address %v", all, of)
		}
		for i := range 2 * maxProven {
			c := s.dial(addr(1000+i), signed)
			s.answered(c)
			_ = c.Close()
		}
		if n := len(s.gate.proven); n != maxProven {
			t.Errorf("%d addresses are remembered, want %d", n, maxProven)
		}
	})
}

// In a flood, a connection whose client has sent its request is not closed only
// because nobody had the time to read it yet.
func TestAFloodSparesWhatIsUnread(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := newGate(l, "public", 8, slog.New(slog.DiscardHandler))
	defer g.Close()
	accept := func(text string) *guarded {
		t.Helper()
		near, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		t.Cleanup(func() { near.Close() })
		if _, err := io.WriteString(near, text); err != nil {
			t.Fatal(err)
		}
		far, err := g.Accept()
		must(t, err)
		t.Cleanup(func() { far.Close() })
		return far.(*guarded)
	}
	sent := accept("GET / HTTP/1.1\r\n")
	if !hasUnread(sent.Conn) {
		t.Skip("this system does not say what is unread")
	}
	silent := accept("")
	for range 30 {
		accept("")
	}
	if sent.gone || !silent.gone || len(g.open) > 8 {
		t.Errorf("what is unread was closed: %t; what is silent: %t; %d are open", sent.gone, silent.gone, len(g.open))
	}
	for range 30 { // as all have sent something, some go all the same
		accept("GET")
	}
	if len(g.open) > 8 {
		t.Errorf("of those that all have sent something %d are open", len(g.open))
	}
}

// Long heads, which take many times their bytes in memory, are few at a time.
func TestLongHeadsAreFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newGated(t, 200)
		long := "POST / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("x:\r\n", 2000)
		for i := range 2 * longHeads {
			s.dial(addr(i), long)
			s.dial(addr(i), long+"Content-Length: 4\r\n\r\nbod") // read as a whole, but not its body
		}
		if all, _ := s.open(); all != longHeads {
			t.Errorf("%d requests with long heads are open, want %d", all, longHeads)
		}
		time.Sleep(time.Second) // the others have waited longer
		c := s.dial(addr(200), long+"Content-Length: 4\r\n\r\nbody")
		s.answered(c)
		if !isOpen(c) {
			t.Error("a whole request with a long head is cut off")
		}
	})
}

// What keeps connections from being accepted is an error in the log, once a minute, and ends nothing.
func TestAFailedAcceptIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newGated(t, 12)
		for range 20 {
			s.wire.queue <- &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
		}
		s.get(addr(0))
		if log := s.log.String(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, "too many open files") || !strings.Contains(log, "ulimit -n") {
			t.Errorf("the log is %s", log)
		}
	})
}

// must fails the test if there is an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
