package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router/server"
)

// Both listeners bound their connections, and count those that they close.
func TestBothListenersBoundTheirConnections(t *testing.T) {
	bubble(t, testBothListenersBoundTheirConnections)
}
func testBothListenersBoundTheirConnections(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) { c.Connections = 8 })
	keep := func(addr string) {
		t.Helper()
		c, err := network.Dial(t.Context(), "tcp", addr)
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		must(t, errOf(fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("a request gets no answer while others hold connections: %v", err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	for range 20 {
		keep(r.App.Addr())
		keep(r.App.AdminAddr())
		time.Sleep(time.Second)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "http://"+r.App.AdminAddr()+"/metrics", nil)
	must(t, err)
	resp, err := httpClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	for _, want := range []string{
		`switchyard_connections{listener="public"} 4`, // half of them are of one address
		`switchyard_connections_closed_total{listener="public"} 16`,
		`switchyard_connections_closed_total{listener="admin"} 1`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// A browser opens connections in advance; a router that stops does not wait for them.
func TestAStopWaitsForNoUnusedConnection(t *testing.T) {
	bubble(t, testAStopWaitsForNoUnusedConnection)
}
func testAStopWaitsForNoUnusedConnection(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{})
	for _, addr := range []string{r.App.Addr(), r.App.AdminAddr()} {
		c, err := network.Dial(t.Context(), "tcp", addr)
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
	}
	synctest.Wait()
	began := time.Now()
	if r.Stop(); time.Since(began) > time.Second {
		t.Errorf("it stopped after %s, want at once", time.Since(began))
	}
}
