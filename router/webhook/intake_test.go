package webhook_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router/testnet"
	"switchyard/router/webhook"
)

// A served hook is one behind a real server.
type served struct {
	*hook
	t    *testing.T
	net  testnet.Net
	addr string
}

func serve(t *testing.T, budget int64) *served {
	s := &served{hook: newHook(t, func(c *webhook.Config) { c.Budget = budget }), t: t}
	s.addr = strings.TrimPrefix(s.net.Serve(t, s), "http://")
	return s
}

// begin sends the head of a delivery that says it has so many bytes, chunked if
// length is -1, and nothing of its body.
func (s *served) begin(length int, signature string) net.Conn {
	s.t.Helper()
	c, err := s.net.Dial(s.t.Context(), "tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	size := fmt.Sprintf("Content-Length: %d", length)
	if length < 0 {
		size = "Transfer-Encoding: chunked"
	}
	_, err = fmt.Fprintf(c, "POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: workflow_job\r\n"+
		"X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\nX-Hub-Signature-256: %s\r\n%s\r\n\r\n", signature, size)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// hold sends all but the last byte of an unsigned body, and is done when the server has read that.
func (s *served) hold(size int) net.Conn {
	s.t.Helper()
	c := s.begin(size, sign("nobody's", nil))
	if _, err := io.WriteString(c, strings.Repeat("x", size-1)); err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *served) answer(c net.Conn) (status int, text string, header http.Header) {
	s.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header
}

// deliver sends a signed delivery of so many bytes at least.
func (s *served) deliver(size int) {
	s.t.Helper()
	body := queued + strings.Repeat(" ", max(size-len(queued), 0))
	c := s.begin(len(body), sign(secret, []byte(body)))
	if _, err := io.WriteString(c, body); err != nil {
		s.t.Fatal(err)
	}
	if status, text, _ := s.answer(c); status != http.StatusAccepted {
		s.t.Errorf("an honest delivery of %d bytes is answered %d %q", len(body), status, text)
	}
}

const kib = 1 << 10

// However many senders hold back the end of unsigned bodies, those together
// stay within the budget, and deliveries of the usual size are stored.
func TestUnsignedBodiesShareABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, 512*kib)
		var first net.Conn
		for i := range 40 {
			c := s.hold(200 * kib)
			if i == 0 {
				first = c
			}
			time.Sleep(10 * time.Millisecond)
			s.deliver(0)
			s.deliver(60 * kib)
			if got := webhook.Held(s.Handler); got > 512*kib {
				t.Fatalf("%d bodies of %d kB hold %d kB", i+1, 200, got/kib)
			}
		}
		status, text, header := s.answer(first)
		if status != http.StatusServiceUnavailable || !strings.Contains(text, "too slowly") || header.Get("Retry-After") == "" {
			t.Errorf("who lost its place is answered %d %q %v", status, text, header)
		}
		if got := webhook.Held(s.Handler); got < 200*kib {
			t.Errorf("%d kB are held while there is room for 512", got/kib)
		}
	})
}

// A sender that sends a byte now and then, or stopped, goes before one that sends as fast as it can.
func TestSlowSendersLoseTheirPlaceFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, 512*kib)
		body := queued + strings.Repeat(" ", 400*kib)
		honest := s.begin(len(body), sign(secret, []byte(body))) // begins first, and is the largest
		if _, err := io.WriteString(honest, body[:300*kib]); err != nil {
			t.Fatal(err)
		}
		slow := s.hold(150 * kib)
		time.Sleep(200 * time.Millisecond) // both are that old: the honest one has twice the bytes
		if _, err := io.WriteString(honest, body[300*kib:]); err != nil {
			t.Fatal(err)
		}
		if status, text, _ := s.answer(honest); status != http.StatusAccepted {
			t.Errorf("the faster sender is answered %d %q", status, text)
		}
		if status, _, _ := s.answer(slow); status != http.StatusServiceUnavailable {
			t.Errorf("the slow sender is answered %d", status)
		}
	})
}

// Chunked bodies, which do not say how long they are, cost what they have, and
// a chunked delivery is as good as any.
func TestChunkedBodiesCostWhatTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, 64*32*kib)
		for range 60 {
			if _, err := io.WriteString(s.begin(-1, sign("nobody's", nil)), "5\r\nhello\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		chunked := func() {
			t.Helper()
			c := s.begin(-1, sign(secret, []byte(queued)))
			if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n0\r\n\r\n", len(queued), queued); err != nil {
				t.Fatal(err)
			}
			if status, text, _ := s.answer(c); status != http.StatusAccepted {
				t.Errorf("a chunked delivery is answered %d %q", status, text)
			}
		}
		chunked()
		s.deliver(60 * kib)
		time.Sleep(2 * time.Second)
		for range 60 { // more than there is room for
			if _, err := io.WriteString(s.begin(-1, sign("nobody's", nil)), "5\r\nhello\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		chunked()
		s.deliver(60 * kib)
	})
}

// Where nothing can end a read under way, as in some tests of others, the next one takes its room all the same.
func TestABodyThatCannotBeCutOffBlocksNobody(t *testing.T) {
	h := newHook(t, func(c *webhook.Config) { c.Budget = 96 * kib })
	body, w := io.Pipe()
	r := request("")
	r.Body, r.ContentLength = io.NopCloser(body), 1<<20
	done := make(chan struct{})
	go func() { h.send(r); close(done) }()
	if _, err := w.Write(make([]byte, 90*kib)); err != nil {
		t.Fatal(err)
	}
	want(t, h.send(request(queued)), http.StatusAccepted, "")
	_ = w.CloseWithError(io.ErrUnexpectedEOF)
	<-done
	want(t, h.send(request(queued)), http.StatusAccepted, "")
	if got := webhook.Held(h.Handler); got != 0 {
		t.Errorf("%d bytes are held of nothing", got)
	}
}
