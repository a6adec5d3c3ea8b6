package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxConnections of each listener may be open. Honest ones are a few dozen:
	// GitHub's or a proxy's, which come and go, and one for each runner that
	// starts at the moment. Where the process may open few files, a quarter of
	// them is the bound, so that the database, Nomad and GitHub get theirs.
	maxConnections   = 768
	leastConnections = 16

	// The head of a request takes some fifteen times its bytes in memory when it
	// has many short lines. So those over shortHead, which is four times what
	// GitHub and Nomad send, are few at a time, unless their requests are worked
	// on; and there is a bound on each: a browser's may have a proxy's cookies.
	shortHead  = 4 << 10
	longHeads  = 32
	publicHead = 16 << 10
	adminHead  = 64 << 10

	crowdedIdle = 5 * time.Second // how long a connection may wait for its client while more than half of the maximum is open
	stuckWrite  = time.Second     // how long a client may read nothing before it may lose its connection to others

	// How many connections in a row are found to wait for this process, and not for
	// their clients, before one of them is closed all the same.
	unreadTries = 4

	// How long an address that sent a good signature is proven, and how many are
	// remembered: GitHub's, or those of proxies before us.
	provenFor = time.Hour
	maxProven = 1024
)

// A gate is a listener that limits its open connections: in all, and those of one address that
// wait for their client. If there are too many it closes the one that has waited longest for
// its client: for the next request, for the rest of one, or for the client to read the answer.
// Connections of proven addresses come last, and those whose requests are being handled are
// left alone.
type gate struct {
	net.Listener
	name string // in the log and in metrics
	most int    // open connections
	log  *slog.Logger

	failed, crowded rate.Sometimes // bound the lines that strangers can cause

	mu      sync.Mutex
	less    sync.Cond // one was closed, or waits again; or closed is set
	open    map[*guarded]struct{}
	sources map[netip.Prefix]*source
	proven  map[netip.Prefix]time.Time // when last
	evicted int                        // connections that were closed for others
	closed  bool
}

// A source is an address that connections come from. For IPv6 it is a network, within which
// one machine can have as many addresses as it likes.
type source struct {
	open, waiting int
	proven        bool
}

// A guarded is an accepted connection. The fields after the first group are guarded by gate.mu.
type guarded struct {
	net.Conn
	gate *gate
	at   netip.Prefix

	from    *source
	gone    bool
	waiting bool      // for its client
	idle    bool      // between two requests
	since   time.Time // when it began to wait
	head    int       // bytes of a head that is being read; -1: it was read
	long    bool      // the head of its request is over shortHead
	writing time.Time // when the write under way began; zero: there is none
}

func newGate(l net.Listener, name string, most int, log *slog.Logger) *gate {
	g := &gate{
		Listener: l, name: name, most: most, log: log, open: map[*guarded]struct{}{}, sources: map[netip.Prefix]*source{}, proven: map[netip.Prefix]time.Time{},
		failed: rate.Sometimes{Interval: time.Minute}, crowded: rate.Sometimes{Interval: time.Minute},
	}
	g.less.L = &g.mu
	return g
}

// Accept waits for the next connection, and for room for it.
func (g *gate) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			g.failed.Do(func() {
				g.log.Error("cannot accept connections: check how many files the process may open (ulimit -n)", "listener", g.name, "addr", g.Addr().String(), "err", err)
			})
		}
		return nil, err
	}
	c := &guarded{Conn: conn, gate: g, at: sourceOf(conn.RemoteAddr()), waiting: true, since: time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.from = g.sources[c.at]; c.from == nil {
		c.from = &source{proven: time.Since(g.proven[c.at]) < provenFor}
		g.sources[c.at] = c.from
	}
	c.from.open++
	c.from.waiting++
	g.open[c] = struct{}{}
	if c.from.waiting > max(g.most/2, 1) {
		g.evict(g.longest(c, c.from))
	} else if v := g.longest(c, nil); len(g.open) > g.most/2 && v != nil && c.since.Sub(v.since) > crowdedIdle {
		g.evict(v)
	}
	for len(g.open) > g.most && !g.closed {
		if v := g.longest(c, nil); v != nil {
			g.evict(v)
		} else {
			g.less.Wait()
		}
	}
	if g.closed {
		g.remove(c)
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	c.since = time.Now() // it waited for room until now, not for its client
	return c, nil
}

// Close closes the listener, and connections that have not sent anything: browsers open some in
// advance, and http.Server.Shutdown waits 5 s for each.
func (g *gate) Close() error {
	g.mu.Lock()
	g.closed = true
	for c := range g.open {
		if c.waiting && !c.idle && c.head == 0 && !hasUnread(c.Conn) {
			_ = c.Conn.Close()
		}
	}
	g.less.Broadcast()
	g.mu.Unlock()
	return g.Listener.Close()
}

// longest returns the connection, except other, that has waited longest for its client: of the
// source that has most of these, or of the given source; nil: none waits.
func (g *gate) longest(other *guarded, of *source) (longest *guarded) {
	for range unreadTries {
		if longest = g.oldest(other, of); longest == nil || !hasUnread(longest.Conn) {
			break
		}
		longest.since = time.Now() // its client has sent something that was not read yet
	}
	return longest
}

func (g *gate) oldest(other *guarded, of *source) (oldest *guarded) {
	now := time.Now()
	for c := range g.open {
		stuck := !c.writing.IsZero() && now.Sub(c.writing) > stuckWrite
		if c == other || of != nil && c.from != of || !c.waiting && !stuck {
			continue
		}
		if oldest == nil || c.before(oldest) {
			oldest = c
		}
	}
	return oldest
}

// before reports whether c, which waits, is closed before o.
func (c *guarded) before(o *guarded) bool {
	switch {
	case c.from.proven != o.from.proven:
		return o.from.proven
	case c.from.waiting != o.from.waiting:
		return c.from.waiting > o.from.waiting
	}
	return c.since.Before(o.since)
}

// markProven says that a request, with its context, had a good signature: connections from its
// address are closed last.
func markProven(ctx context.Context) {
	c, _ := ctx.Value(guardedKey{}).(*guarded)
	if c == nil {
		return // it did not come through a gate
	}
	g := c.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.proven[c.at]; !known && len(g.proven) >= maxProven {
		oldest := c.at
		for at, when := range g.proven {
			if oldest == c.at || when.Before(g.proven[oldest]) {
				oldest = at
			}
		}
		delete(g.proven, oldest)
	}
	g.proven[c.at] = time.Now()
	c.from.proven = true
}

func (g *gate) evict(c *guarded) {
	g.remove(c)
	g.evicted++
	_ = c.Conn.Close()
	g.crowded.Do(func() {
		g.log.Warn("many connections are open; those that have waited longest for their client are closed (logged once a minute)",
			"listener", g.name, "open", len(g.open), "remote", c.RemoteAddr().String(), "of_its_address", c.from.open)
	})
}

// remove forgets a connection.
func (g *gate) remove(c *guarded) {
	if c.gone {
		return
	}
	c.gone = true
	g.wait(c, false)
	delete(g.open, c)
	if c.from.open--; c.from.open == 0 {
		delete(g.sources, c.at)
	}
	g.less.Signal()
}

// wait sets whether a connection waits for its client.
func (g *gate) wait(c *guarded, waiting bool) {
	if waiting == c.waiting {
		return
	}
	if c.waiting = waiting; waiting {
		c.from.waiting++
		g.less.Signal()
	} else {
		c.from.waiting--
	}
}

// Close closes the connection.
func (c *guarded) Close() error {
	c.gate.mu.Lock()
	c.gate.remove(c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// Read reads. The first bytes of a request end the wait for it, and begin the wait for its rest.
func (c *guarded) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.gate.received(c, n)
	}
	return n, err
}

func (g *gate) received(c *guarded, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.idle {
		c.idle, c.since = false, time.Now()
	}
	if c.head < 0 || c.long {
		return
	}
	if c.head += n; c.head <= shortHead {
		return
	}
	c.long = true
	var oldest *guarded
	n = 0
	for o := range g.open {
		if o.long && o.waiting {
			if n++; oldest == nil || o.since.Before(oldest.since) {
				oldest = o
			}
		}
	}
	if n > longHeads {
		g.evict(oldest)
	}
}

// Write writes.
func (c *guarded) Write(p []byte) (int, error) {
	c.writes(time.Now())
	defer c.writes(time.Time{})
	return c.Conn.Write(p)
}

func (c *guarded) writes(since time.Time) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.writing = since
}

// read says that the head of a request was read, or the whole request.
func (c *guarded) read(whole bool) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.head = -1
	if whole && !c.gone {
		c.gate.wait(c, false)
	}
}

type guardedKey struct{}

// guard makes srv, which serves the connections of g, report whether each waits for its client.
func (g *gate) guard(srv *http.Server) {
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, guardedKey{}, c)
	}
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		if c, ok := c.(*guarded); ok && s == http.StateIdle {
			g.mu.Lock()
			defer g.mu.Unlock()
			if !c.gone {
				c.idle, c.since, c.head, c.long = true, time.Now(), 0, false
				g.wait(c, true)
			}
		}
	}
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, _ := req.Context().Value(guardedKey{}).(*guarded)
		if c != nil {
			c.read(req.ContentLength == 0)
		}
		if c != nil && req.ContentLength != 0 {
			req = req.WithContext(req.Context()) // a copy, as the server inspects the body of its own
			req.Body = &awaited{req.Body, c}
		}
		next.ServeHTTP(w, req)
	})
}

// An awaited is a request's body that may not have arrived yet.
type awaited struct {
	io.ReadCloser
	conn *guarded
}

func (b *awaited) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.conn.read(true)
	}
	return n, err
}

// sourceOf returns the source that an address belongs to.
func sourceOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	network, _ := ip.Prefix(bits) // it has that many bits
	return network
}
