package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/server"
)

// What Nomad's template and restarts did: a bad edit, and the program started
// again and again. Deliveries are taken, jobs routed by the last good rules, and the
// mended file comes into force by itself.
func TestABadEditAndARestartLoseNoDelivery(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stop at the end is a signal that Windows does not have")
	}
	sim := nomadsim.New(nomadsim.Config{}) // no nodes: the Nomad jobs wait
	t.Cleanup(sim.Close)
	cluster := httptest.NewServer(sim)
	t.Cleanup(cluster.Close)
	p := newProcess(t, cluster.URL, waitsOnGitHub(t))
	path := p.args[2]
	status := func() (s server.Readiness) {
		t.Helper()
		must(t, json.Unmarshal(p.get("/readyz"), &s))
		return s
	}
	clusterAPI, err := api.NewClient(&api.Config{Address: cluster.URL})
	must(t, err)
	id := int64(0)
	routed := func(rule string) {
		t.Helper()
		id++
		if got := send(t.Context(), http.DefaultClient, p.url, fmt.Sprint(id), payload(id, "self-hosted", "linux", "x64")); got != http.StatusAccepted {
			t.Fatalf("delivery %d was answered %d, want 202; the log:\n%s", id, got, p.log.String())
		}
		within, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for {
			job, _, err := clusterAPI.Jobs().Info(fmt.Sprintf("gha-%d-1", id), nil)
			if err == nil {
				if got := job.Meta["SWITCHYARD_RULE"]; got != rule {
					t.Errorf("job %d was taken by the rule %q, want %q", id, got, rule)
				}
				return
			}
			select {
			case <-within.Done():
				t.Fatalf("job %d has no Nomad job; the log:\n%s", id, p.log.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	const linuxRule = "version: 1\nlabels: { self-hosted: {}, linux: {}, x64: {} }\nrules:\n  - { name: %s, if: has(\"linux\"), jobspec: docker-linux }\n"
	write(t, path, fmt.Sprintf(linuxRule, "good"))
	p.start()
	routed("good")
	replace(t, path, fmt.Sprintf(linuxRule, "good, if: true"))
	for range 3 {
		p.kill()
		p.start()
		s := status()
		said := s.Checks[slices.IndexFunc(s.Checks, func(c server.Check) bool { return c.Name == "rules" })]
		if s.Status != "degraded" || s.Rules.Origin != router.LastGood || s.Rules.Error == nil || !strings.HasPrefix(said.Reason, "the rules' files were bad at the start, so the last good rules in the database are in force: ") {
			t.Fatalf("/readyz after a start with bad rules: %+v", s)
		}
		if text := string(p.get("/metrics")); !strings.Contains(text, "switchyard_rules_last_good 1\n") || !strings.Contains(text, "switchyard_rules_reload_failed 1\n") {
			t.Errorf("the metrics do not say that the rules are the last good ones:\n%s", text)
		}
		for page, says := range map[string]string{
			"/": "files were bad at the start, so the last good rules in the database are in force", "/rules": "The rules files were invalid when the server started",
		} {
			if text := string(p.get(page)); !strings.Contains(text, says) {
				t.Errorf("%s does not say so:\n%s", page, text)
			}
		}
		routed("good")
	}
	replace(t, path, fmt.Sprintf(linuxRule, "mended"))
	p.awaitRules(func(s router.RulesStatus) bool { return s.Origin == "file changed" && s.Error == nil })
	if text := string(p.get("/metrics")); !strings.Contains(text, "switchyard_rules_last_good 0\n") {
		t.Error("the metrics still say that the rules are the last good ones")
	}
	routed("mended")
	p.stop()
}
