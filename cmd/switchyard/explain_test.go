package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/rules"
)

// The API decides by the same path as the command: what both print is the same
// to the byte, for the label sets of public workflows, too, when they are here.
func TestTheAPIExplainsAsTheCommandDoes(t *testing.T) {
	url, _ := operated(t, t.TempDir())
	t.Setenv("SWITCHYARD_ADMIN_TOKEN", operatorsToken)
	file := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, file, string(demoRules))
	for _, args := range [][]string{
		{"--labels", "self-hosted,linux,gpu"},
		{"--labels", "self-hosted,linux,cpu=8", "--all"},
		{"--labels", "self-hosted,linux", "--branch", "release/1", "--render", "json"},
		{"--labels", "self-hosted,linux", "--visibility", "public"},
		{"--labels", "self-hosted,linx<script>"},
		{"--labels", "ubuntu-latest"},
		{"--labels", "self-hosted,macos", "--fork"},
	} {
		for _, format := range []string{"json", "text"} {
			ask := append([]string{"explain", "--repo", "acme/web", "--format", format}, args...)
			var byFile, byServer, errs bytes.Buffer
			// A rendered job names the server that it claims at.
			where := []string{"--rules", file, "--public-url", publicURL(t, url)}
			want := run(t.Context(), append(ask, where...), nil, &byFile, &errs)
			got := run(t.Context(), append(ask, "--server", url), nil, &byServer, &errs)
			if want != got || byFile.String() != byServer.String() || byFile.Len() == 0 {
				t.Errorf("%v\nby the file %d:\n%s\nby the server %d:\n%s\n%s", ask, want, byFile.String(), got, byServer.String(), errs.String())
			}
		}
	}

	text, err := os.ReadFile("../../../shared/github/runs-on.json")
	if err != nil {
		t.Skipf("the collected label sets are not here: %v", err)
	}
	var sets []struct{ Labels []string }
	must(t, json.Unmarshal(text, &sets))
	set, err := rules.Parse("rules.example.yaml", demoRules)
	must(t, err)
	o := operator{server: url}
	for _, s := range sets {
		repo := router.Repo{Host: rules.DefaultHost, Owner: "acme", Name: "web", FullName: "acme/web", Private: true, Visibility: "private"}
		d := set.Decide(rules.Facts{Labels: s.Labels, Repo: repo, Job: rules.Job{Attempt: 1}}, true)
		if d.Trace == nil {
			d.Trace = []rules.Step{}
		}
		labels := append([]string{}, s.Labels...)
		var answer struct {
			Decision json.RawMessage `json:"decision"`
		}
		if err := o.ask(t.Context(), http.MethodPost, api.Prefix+"/explain", nil, api.Question{Repo: "acme/web", Labels: labels}, &answer); err != nil {
			t.Fatalf("%q: %v", s.Labels, err)
		}
		want, err := json.Marshal(d)
		must(t, err)
		if !bytes.Equal(want, answer.Decision) {
			t.Errorf("%q\ndecided: %s\nanswered: %s", s.Labels, want, answer.Decision)
		}
	}
	t.Logf("%d label sets", len(sets))
}

// publicURL is the address that a server with this console claims at.
func publicURL(t *testing.T, console string) string {
	t.Helper()
	var answer api.Answer
	o := operator{server: console}
	q := api.Question{Repo: "acme/web", Labels: []string{"self-hosted", "linux"}, Render: true}
	must(t, o.ask(t.Context(), http.MethodPost, api.Prefix+"/explain", nil, q, &answer))
	_, after, ok := strings.Cut(string(answer.NomadJob), `"SWITCHYARD_CLAIM_URL":"http://`)
	address, _, ended := strings.Cut(after, router.ClaimPath)
	if !ok || !ended {
		t.Fatalf("there is no claim URL in %s, %s", answer.NomadJob, answer.NotRendered)
	}
	return "http://" + address
}
