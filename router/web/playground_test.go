package web_test

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"switchyard/router/web"
	"switchyard/rules"
)

func TestThePlaygroundShowsWhatTheRulesDecide(t *testing.T) {
	away := cluster{}
	s := serve(t, func(c *web.Config) { c.Cluster = &away })
	for query, texts := range map[string][]string{
		"": {"start with those of a rule", `href="/playground?labels=self-hosted%2C&#43;linux&amp;repo=acme%2Fweb"`, `value="acme/web"`},
		"labels=self-hosted linux gpu&event=push":    {"is-routed", "rule linux runs it with the jobspec docker-linux", "1 × nvidia/gpu", "label gpu", "&#34;Job&#34;: &#34;linux&#34;"},
		"labels=[self-hosted, 'linux']":              {"is-undecided", "Fill in “Job and workflow run”", ">unknown<"},
		"labels=linux":                               {"is-ignored", "No rule was evaluated."},
		"labels=self-hosted,linx&event=push":         {"is-unroutable", "unknown label &#34;linx&#34; (did you mean linux?)", "No rule was evaluated."},
		"labels=self-hosted,gpu&event=push":          {"is-unroutable", "The nearest rule is linux", "the job lacks the label"},
		"labels=self-hosted,linux&run_fork=true":     {"is-denied", "no forks", `name="run_fork" value="true" checked`},
		"labels=linux&repo=acme":                     {"repo &#34;acme&#34;: want owner/name"},
		"labels=linux&repo=a/b&visibility=secret":    {"visibility &#34;secret&#34;"},
		"labels=<b>x&repo=<i>/y&event=push&job=<u>z": {"&lt;b&gt;x", "&lt;i&gt;/y", "&lt;u&gt;z"},
		"job_id=1": {`value="linux"`, `value="build"`, "with the labels"},
	} {
		q := strings.NewReplacer(" ", "%20", "[", "%5B", "]", "%5D", "'", "%27", "<", "%3C", ">", "%3E").Replace(query)
		page := s.get("/playground?"+q, http.StatusOK)
		wants(t, page, texts...)
		if strings.Contains(page, "<b>") || strings.Contains(page, "<i>") || strings.Contains(page, "<u>") {
			t.Errorf("the playground for %q holds markup", query)
		}
	}
	if page := s.get("/jobs/1", http.StatusOK); !strings.Contains(page, `href="/playground?job_id=1"`) {
		t.Errorf("the page of a job does not lead to the playground: %s", page)
	}
	away.fail = errors.New("Nomad is away\x1b[31m")
	if page := s.get("/playground?labels=self-hosted,linux&event=push", http.StatusOK); !strings.Contains(page, `cannot be shown: Nomad is away\x1b[31m`) || !strings.Contains(page, "is-routed") {
		t.Errorf("with Nomad away: %s", page)
	}
	s.get("/playground?job_id=99", http.StatusNotFound)
	s.get("/playground?job_id=x", http.StatusBadRequest)
	s.get("/playground?colour=red", http.StatusBadRequest)
	s.get("/playground?labels="+strings.Repeat("x", 2000), http.StatusBadRequest)
}

// A known label's link adds it to those asked for, or takes it away.
// A label that holds a comma or a blank stays one when a job is tried.
func TestThePlaygroundKeepsLabelsApart(t *testing.T) {
	for _, labels := range [][]string{
		{"self-hosted", "linux"}, {"self-hosted, linux"}, {"self-hosted linux"}, {`["self-hosted","linux"]`}, {"a", "b c", "- d"},
	} {
		if got := web.PlaygroundLabels(rules.ShowLabels(labels)); !slices.Equal(got, labels) {
			t.Errorf("the labels %q are read as %q", labels, got)
		}
	}
	for text, want := range map[string][]string{
		"self-hosted linux": {"self-hosted", "linux"}, "runs-on: self-hosted": {"self-hosted"}, "[self-hosted linux]": {"self-hosted", "linux"},
		"runs-on: [self-hosted, 'linux',]": {"self-hosted", "linux"}, "- self-hosted\n- linux": {"self-hosted", "linux"},
	} {
		if got := web.PlaygroundLabels(text); !slices.Equal(got, want) {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
}

func TestThePlaygroundOffersKnownLabels(t *testing.T) {
	s := serve(t, func(c *web.Config) { c.App = ruled{&app{}, parse(t, catalogue)} })
	page := s.get("/playground?labels=Linux,cpu%3D4&repo=a/b&fork=true&branch=x%26y", http.StatusOK)
	for _, labels := range []string{"cpu=4", "Linux", "Linux, cpu=4, gpu"} {
		q := url.Values{"labels": {labels}, "repo": {"a/b"}, "fork": {"true"}, "branch": {"x&y"}}
		want := `href="/playground?` + strings.NewReplacer("&", "&amp;", "+", "&#43;").Replace(q.Encode()) + `"`
		if !strings.Contains(page, want) {
			t.Errorf("the page has no link %s:\n%s", want, page)
		}
	}
	if page := s.get("/playground?labels=self-hosted,linux,beta", http.StatusOK); !strings.Contains(page, "would also") {
		t.Errorf("the rule beta would take the job, too: %s", page)
	}
}
