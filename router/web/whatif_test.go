package web_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/simulate"
	"switchyard/router/web"
	"switchyard/rules"
)

// whatIf is a simulator that has been asked.
type whatIf struct {
	asked chan float64 // scales
	hold  chan struct{}
}

func (w whatIf) Simulate(_ context.Context, _ *rules.Set, since time.Time, most int, scale float64) (simulate.Report, error) {
	w.asked <- scale
	<-w.hold
	row := simulate.Row{Rule: "<b>gpu", Jobs: 1234, Queue: simulate.Waits{P95: 840}, Node: simulate.Waits{P95: 830}, Never: 2, Why: []string{"3 of 4 nodes: lacks missing devices"}}
	return simulate.Report{
		Scale: scale, Nodes: 7, Jobs: 1234, Total: row, Rules: []simulate.Row{row},
		Groups: []simulate.Group{{OS: "linux", Arch: "amd64", Class: "gpu", Pool: "ci", Nodes: 7, CPU: 0.25}},
		Advice: []simulate.Advice{
			{More: 2, Like: "linux-gpu-1", OS: "linux", Arch: "amd64", Class: "gpu", Pool: "ci", Rule: "<b>gpu", Before: 840, After: 40},
			{More: -3, OS: "darwin", Arch: "arm64", Pool: "macs", Unused: 1},
		},
	}, nil
}

func TestWhatIfShowsASimulation(t *testing.T) {
	w := whatIf{make(chan float64, 9), make(chan struct{}, 9)}
	var c web.Config
	s := serve(t, func(served *web.Config) {
		served.Simulator = w
		served.Now = func() time.Time { return t0 }
		c = *served
	})
	if page := s.get("/whatif?percent=150", http.StatusOK); !strings.Contains(page, "data-again") {
		t.Errorf("it is not said that it takes time: %s", page)
	}
	if scale := <-w.asked; scale != 1.5 {
		t.Errorf("simulated x%v", scale)
	}
	if page := s.get("/whatif", http.StatusOK); !strings.Contains(page, "data-again") || len(w.asked) > 0 { // one at a time
		t.Errorf("%d more were simulated: %s", len(w.asked), page)
	}
	w.hold <- struct{}{}
	wants(t, s.counted("/whatif?percent=150"), "<small>on 7 nodes", "2 more like <bdi>linux-gpu-1</bdi> (linux amd64, class gpu, pool ci)", "&lt;b&gt;gpu", "3 could go (darwin arm64, pool macs): 1 of them never had a job",
		"3 of 4 nodes: lacks missing devices", `<option value="150" selected>1.5 times as many`, "25&nbsp;%")
	for _, wrong := range []string{"days=2", "percent=7", "days=x", "q=1"} {
		s.get("/whatif?"+wrong, http.StatusBadRequest)
	}
	for len(w.asked) > 0 {
		<-w.asked
	}
	if page := web.PageFor(c, "/whatif", router.Scope{"acme/web"}); !strings.Contains(page, "for those who may see all") || len(w.asked) > 0 {
		t.Errorf("a team was shown what concerns all: %s", page)
	}
	c.Simulator = nil
	if page := web.PageFor(c, "/whatif", nil); !strings.Contains(page, "knows no Nomad") {
		t.Errorf("without Nomad: %s", page)
	}
}
