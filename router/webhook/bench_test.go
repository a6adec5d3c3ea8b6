package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/store"
	"switchyard/router/webhook"
)

// body8k is a queued delivery of the size that GitHub's have. The job's ID
// stands where idAt says, in ten digits.
func body8k() (body []byte, idAt int) {
	var p map[string]any
	if err := json.Unmarshal([]byte(queued), &p); err != nil {
		panic(err)
	}
	repo := p["repository"].(map[string]any)
	for i := range 60 {
		repo[fmt.Sprintf("some_kind_of_url_%d", i)] = fmt.Sprintf("https://api.github.com/repos/acme/web/some/kind/of/url/%d{/sha}", i)
	}
	steps := make([]any, 12)
	for i := range steps {
		steps[i] = map[string]any{"name": "Set up job", "status": "completed", "conclusion": "success", "number": i, "started_at": "2026-03-01T12:00:00.000Z", "completed_at": nil}
	}
	p["workflow_job"].(map[string]any)["steps"] = steps
	p["workflow_job"].(map[string]any)["id"] = 2000000000
	body, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		panic(err)
	}
	return body, bytes.Index(body, []byte("2000000000"))
}

// BenchmarkDelivery measures a signed delivery from the sender's request over
// loopback to the answer 202, which means that it is on disk. Senders, HTTP
// and the store share the process and its CPUs. Beside it, how often the same disk can
// write a page to the end of a file and sync it.
func BenchmarkDelivery(b *testing.B) {
	b.Run("sync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "file"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		page := make([]byte, 4096)
		for b.Loop() {
			if _, err := f.Write(page); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "syncs/s")
	})
	for _, senders := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) { benchmarkDelivery(b, senders) })
	}
}

func benchmarkDelivery(b *testing.B, senders int) {
	st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "bench.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	h, err := webhook.Handler(webhook.Config{
		Secrets: []router.Secret{secret},
		Logger:  slog.New(slog.NewJSONHandler(io.Discard, nil)),
	}, func(ctx context.Context, d router.Delivery) error {
		_, err := st.Receive(ctx, d)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: senders}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	template, idAt := body8k()

	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.SetBytes(int64(len(template)))
	b.ResetTimer()
	for range senders {
		wg.Go(func() {
			body := slices.Clone(template)
			for {
				i := next.Add(1) - 1
				if i >= int64(b.N) {
					return
				}
				copy(body[idAt:], strconv.FormatInt(2000000000+i, 10))
				r, _ := http.NewRequest(http.MethodPost, server.URL, bytes.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("X-GitHub-Event", "workflow_job")
				r.Header.Set("X-GitHub-Delivery", fmt.Sprintf("%08x-cc78-11e3-81ab-4c9367dc0958", uint32(i*2654435761)))
				r.Header.Set("X-Hub-Signature-256", sign(secret, body))
				began := time.Now()
				resp, err := client.Do(r)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				took[i] = time.Since(began)
				if resp.StatusCode != http.StatusAccepted {
					b.Errorf("answered %s", resp.Status)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(ms(took[b.N/2]), "p50-ms")
	b.ReportMetric(ms(took[b.N*99/100]), "p99-ms")
	counts, err := st.Counts(b.Context())
	if err != nil || counts[router.Queued] != b.N {
		b.Errorf("the store has %v (%v), want %d queued", counts, err, b.N)
	}
}

func BenchmarkDecode(b *testing.B) {
	body, _ := body8k()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := webhook.Decode(body); err != nil {
			b.Fatal(err)
		}
	}
}

// A delivery of the benchmarks is one that the handler takes as GitHub's.
func TestTheBenchmarksDelivery(t *testing.T) {
	body, idAt := body8k()
	if idAt < 0 || len(body) < 7<<10 || len(body) > 9<<10 || strings.Count(string(body), "2000000000") != 1 {
		t.Errorf("%d bytes, ID at %d", len(body), idAt)
	}
	want(t, newHook(t).send(request(string(body))), http.StatusAccepted, "")
}
