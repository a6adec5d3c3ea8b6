package postgrestest

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Proxy stands between a Switchyard and its database, and fails as networks do. It is safe
// for concurrent use.
type Proxy struct {
	URL string // of the database, by the proxy

	listen          net.Listener
	network, server string // where the database listens

	mu      sync.Mutex
	refuses bool
	frozen  bool
	thaws   sync.Cond // of mu
	delay   time.Duration
	deaf    bool // the next answer that says COMMIT is not passed on
	conns   map[net.Conn]bool
}

// NewProxy returns a proxy for the database with a URL of URL's. It ends with the test.
func NewProxy(t testing.TB, database string) *Proxy {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{conns: map[net.Conn]bool{}}
	p.thaws.L = &p.mu
	p.network, p.server = pgconn.NetworkAddress(config.Host, config.Port)
	if p.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(p.listen.Addr().String())
	q := u.Query()
	q.Set("host", host)
	q.Set("port", port)
	q.Set("sslmode", "disable")
	u.RawQuery = q.Encode()
	p.URL = u.String()
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := p.listen.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = p.listen.Close()
		p.Freeze(false)
		p.Cut()
		running.Wait()
	})
	return p
}

// Cut closes all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Refuse sets whether new connections are closed at once. It cuts those that there are.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	p.refuses = refuse
	p.mu.Unlock()
	if refuse {
		p.Cut()
	}
}

// Freeze sets whether nothing is passed on, either way, though all connections stay, as when
// a machine or a network goes away without a word.
func (p *Proxy) Freeze(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = frozen
	p.thaws.Broadcast()
}

// Delay sets for how long each piece of data is kept before it is passed on, either way.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// hold waits for as long as nothing may be passed on. p.mu is held, but not while it waits.
func (p *Proxy) hold() {
	if d := p.delay; d > 0 {
		p.mu.Unlock()
		time.Sleep(d)
		p.mu.Lock()
	}
	for p.frozen {
		p.thaws.Wait()
	}
}

// CutNextCommit has the proxy cut a connection when the database has committed its next
// transaction, before the answer is passed on.
func (p *Proxy) CutNextCommit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = true
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial(p.network, p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	refuses := p.refuses
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	if refuses {
		_ = client.Close()
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(questions{p, server}, client)
		_ = server.Close()
	})
	both.Go(func() {
		_, _ = io.Copy(answers{p, client}, server)
		_ = client.Close()
		_ = server.Close()
	})
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
	delete(p.conns, server)
}

// questions passes on what the database is told.
type questions struct {
	p      *Proxy
	server net.Conn
}

func (q questions) Write(b []byte) (int, error) {
	q.p.mu.Lock()
	q.p.hold()
	q.p.mu.Unlock()
	return q.server.Write(b)
}

// answers passes on what the database says.
type answers struct {
	p      *Proxy
	client net.Conn
}

func (a answers) Write(b []byte) (int, error) {
	a.p.mu.Lock()
	a.p.hold()
	cut := a.p.deaf && bytes.Contains(b, []byte("COMMIT\x00"))
	a.p.deaf = a.p.deaf && !cut
	a.p.mu.Unlock()
	if cut {
		return 0, io.ErrClosedPipe
	}
	return a.client.Write(b)
}
