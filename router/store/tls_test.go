package store_test

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"switchyard/router/store"
)

// A server that speaks TLS with a certificate of nobody whom clients know, as PostgreSQL does,
// or does not speak it at all. It returns the parameters of the first connection's start, if
// that got so far, and whether they were encrypted.
func startOf(t *testing.T, speaksTLS bool, sslmode string) (start string, encrypted bool, err error) {
	t.Helper()
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	t.Cleanup(certificates.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	type begun struct {
		start     string
		encrypted bool
	}
	seen := make(chan begun, 1)
	go func() {
		defer close(seen)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		// https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest and StartupMessage
		read := func(c io.Reader) (code uint32, rest string) {
			var head [8]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return 0, ""
			}
			body := make([]byte, min(binary.BigEndian.Uint32(head[:4])-8, 1<<10))
			_, _ = io.ReadFull(c, body)
			return binary.BigEndian.Uint32(head[4:]), string(body)
		}
		code, text := read(c)
		if code != 80877103 { // not an SSLRequest
			seen <- begun{text, false}
			return
		}
		if !speaksTLS {
			_, _ = c.Write([]byte("N"))
			_, text = read(c)
			seen <- begun{text, false}
			return
		}
		_, _ = c.Write([]byte("S"))
		_, text = read(tls.Server(c, certificates.TLS))
		seen <- begun{text, true}
	}()
	_, err = store.Open(t.Context(), fmt.Sprintf("postgres://u:s3cret@%s/db?sslmode=%s", l.Addr(), sslmode))
	_ = l.Close()
	got := <-seen
	return got.start, got.encrypted, err
}

func TestThePasswordGoesNowhereThatSSLModeForbids(t *testing.T) {
	t.Setenv("PGSSLROOTCERT", "")
	for _, tt := range []struct {
		sslmode   string
		speaksTLS bool
		begins    bool // the server gets to know who connects
		encrypted bool
		says      string
	}{
		{"disable", true, true, false, ""},
		{"require", true, true, true, ""},
		{"require", false, false, false, "TLS"},
		{"verify-full", true, false, false, "certificate"},
		{"verify-full", false, false, false, "TLS"},
	} {
		start, encrypted, err := startOf(t, tt.speaksTLS, tt.sslmode)
		if begins := strings.Contains(start, "user\x00u\x00"); begins != tt.begins || begins && encrypted != tt.encrypted {
			t.Errorf("sslmode=%s, TLS %t: it began with %q, encrypted %t", tt.sslmode, tt.speaksTLS, start, encrypted)
		}
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("sslmode=%s, TLS %t: %v", tt.sslmode, tt.speaksTLS, err)
		}
	}
}
