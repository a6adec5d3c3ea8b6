package webhook_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/webhook"
	"switchyard/rules"
)

// One who saw a delivery once can send it again under other IDs, which are not signed.
func TestTheSameSignedBytesAreStoredAFewTimes(t *testing.T) {
	outcomes := map[string]int{}
	h := newHook(t, func(c *webhook.Config) { c.Counted = func(outcome string) { outcomes[outcome]++ } })
	const sent = 1000
	for i := range sent {
		r := request(queued)
		r.Header.Set("X-GitHub-Delivery", fmt.Sprint("again-", i))
		want(t, h.send(r), http.StatusAccepted, "")
	}
	if n := len(h.got); n > 4 || outcomes[router.DeliveryKnown] != sent-n {
		t.Errorf("%d of %d were to be stored, %v", n, sent, outcomes)
	}
	if n := strings.Count(h.log.String(), "\n"); n > 4 {
		t.Errorf("they made %d lines", n)
	}
	for _, d := range h.got {
		if d.Digest == "" || d.Digest != h.got[0].Digest {
			t.Errorf("digests are %q and %q", h.got[0].Digest, d.Digest)
		}
	}
	other := strings.Replace(queued, "29679449526", "29679449527", 1)
	want(t, h.send(request(other)), http.StatusAccepted, "")
	if d := h.got[len(h.got)-1]; d.Digest == h.got[0].Digest || d.Job.ID != 29679449527 {
		t.Errorf("another delivery is taken for the same: %+v", d)
	}
	// What could not be stored is no repeat.
	h.err = http.ErrHandlerTimeout
	for range 10 {
		want(t, h.send(request(strings.Replace(queued, "29679449526", "5", 1))), http.StatusServiceUnavailable, "")
	}
	h.err = nil
	want(t, h.send(request(strings.Replace(queued, "29679449526", "5", 1))), http.StatusAccepted, "")
	if h.got[len(h.got)-1].Job.ID != 5 {
		t.Error("a delivery that could not be stored before is not stored now")
	}
}

func TestHowOldAJobIs(t *testing.T) {
	for text, want := range map[string]time.Time{
		`"2026-11-20T08:00:00Z"`: time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC),
		`"yesterday"`:            {},
		`null`:                   {},
	} {
		if got := decode(t, edit(t, "workflow_job.created_at", text)).CreatedAt; !got.Equal(want) {
			t.Errorf("created_at %s is read as %v, want %v", text, got, want)
		}
	}
}

// However many and long they are, a job's labels are bounded together, and a job
// whose labels were cut is refused for it.
func TestLabelsAreBoundedTogether(t *testing.T) {
	set, err := rules.Parse("rules.yaml", []byte("version: 1\nlabels: { \"*\": {} }\nrules: [{ name: all, jobspec: docker-linux }]\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		n, length int
		refused   bool
	}{
		"usual":           {10, 20, false},
		"as many as can":  {100, 80, false},
		"many, long":      {100, 100, true},
		"many, wide":      {100, 200, true},
		"up to the bound": {65, 63, false},
		"one":             {1, 1, false},
	} {
		labels := make([]string, tt.n)
		for i := range labels {
			labels[i] = fmt.Sprintf("%03d", i)
			pad := "x"
			if name == "many, wide" {
				pad = "\U0001F600"
			}
			labels[i] += strings.Repeat(pad, max(0, tt.length-3))
		}
		labels[0] = "self-hosted"
		b, err := json.Marshal(labels)
		if err != nil {
			t.Fatal(err)
		}
		d := decode(t, edit(t, "workflow_job.labels", string(b)))
		size := 0
		for _, l := range d.Job.Labels {
			size += len(l)
		}
		if size > router.MaxTokenLabels+4 {
			t.Errorf("%s: %d bytes are kept", name, size)
		}
		decision := set.Decide(d.Job.Facts(), false)
		if refused := strings.Contains(decision.Reason, "bytes together"); refused != tt.refused {
			t.Errorf("%s: %s", name, decision.Reason)
		}
	}
}
