package server_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router/server"
)

// A hundred who follow do not keep the server from stopping, and the streams
// tell of what happens until then.
func TestStreamsEndAsTheServerStops(t *testing.T) { bubble(t, testStreamsEndAsTheServerStops) }
func testStreamsEndAsTheServerStops(t *testing.T) {
	r := start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) { c.Grace = 2 * time.Minute })
	var streams []*bufio.Reader
	for range 100 {
		resp, err := httpClient.Get("http://" + r.App.AdminAddr() + "/api/v1/events")
		must(t, err)
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("the stream is answered %s", resp.Status)
		}
		streams = append(streams, bufio.NewReader(resp.Body))
	}
	r.deliver(delivery(1, "queued", "linux"))
	for _, s := range streams {
		for {
			line, err := s.ReadString('\n')
			if err != nil {
				t.Fatalf("a stream ends before it reports job 1: %v", err)
			}
			if strings.HasPrefix(line, "data: ") && strings.Contains(line, `"job_id":1,`) {
				break
			}
		}
	}
	began := time.Now()
	r.Stop()
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the server took %v to stop", took)
	}
	for _, s := range streams {
		for {
			if _, err := s.ReadString('\n'); err != nil {
				break
			}
		}
	}
}
