package main

import (
	"bytes"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/router/nomad/capacity"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/rules"
)

// rulesOnly is an app that only has rules.
type rulesOnly struct {
	api.App
	set *rules.Set
}

func (a rulesOnly) Rules() *rules.Set                   { return a.set }
func (rulesOnly) Status(router.Scope) (s router.Status) { return s }

// The playground says all that `switchyard explain --all` does, and shows the Nomad job that --render prints.
func TestThePlaygroundSaysWhatExplainDoes(t *testing.T) {
	const file = "../../rules.example.yaml"
	set, specs, err := loadRules(t.Context(), io.Discard, file, "")
	must(t, err)
	client, err := nomad.New(nomad.Config{Jobspecs: specs})
	must(t, err)
	h := web.Handler(web.Config{App: rulesOnly{set: set}, Cluster: clusterAdapter{capacity.New(client), "http://127.0.0.1:8080"}})
	explain := func(args ...string) string {
		var out, errs bytes.Buffer
		run(t.Context(), append([]string{"explain", "--rules", file, "--all"}, args...), nil, &out, &errs)
		if out.Len() == 0 && errs.Len() == 0 {
			t.Fatalf("explain %v says nothing", args)
		}
		return out.String()
	}
	parts := regexp.MustCompile(` {2,}|, |: `)
	otherWords := []string{"too", "?"}
	spaces := regexp.MustCompile(`\s+`)
	tags := regexp.MustCompile(`<[^>]*>`)
	for _, tt := range []struct {
		args  []string
		query url.Values
	}{
		{[]string{"--labels", "self-hosted,Linux,gpu,cpu=4,memory=8GiB"}, url.Values{}},
		{[]string{"--labels", "self-hosted,linux", "--branch", "release/1"}, url.Values{"branch": {"release/1"}}},
		{[]string{"--labels", "yard=7/linux/zone=tokyo-a"}, url.Values{}},
		{[]string{"--labels", "self-hosted,macos,arm64"}, url.Values{}},
		{[]string{"--labels", "self-hosted,linux", "--visibility", "public"}, url.Values{"visibility": {"public"}}},
		{[]string{"--labels", "self-hosted,linux", "--fork"}, url.Values{"fork": {"true"}}},
		{[]string{"--labels", "self-hosted,gpu"}, url.Values{}},
		{[]string{"--labels", "self-hosted,linus"}, url.Values{}},
		{[]string{"--labels", "ubuntu-latest"}, url.Values{}},
	} {
		tt.query.Set("labels", tt.args[1])
		tt.query.Set("repo", "acme/web")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://127.0.0.1/playground?"+tt.query.Encode(), nil))
		if rec.Code != http.StatusOK {
			t.Fatalf("%v: %d %s", tt.args, rec.Code, rec.Body)
		}
		_, answer, _ := strings.Cut(rec.Body.String(), `<div id="answer">`)
		page := strings.ToLower(spaces.ReplaceAllString(html.UnescapeString(tags.ReplaceAllString(answer, " ")), " "))
		args := append([]string{"--repo", "acme/web"}, tt.args...)
		for line := range strings.Lines(explain(args...)) {
			for _, part := range parts.Split(strings.ToLower(strings.TrimSpace(line)), -1) {
				if part = strings.TrimSuffix(part, ":"); !slices.Contains(otherWords, part) && !strings.Contains(page, part) {
					t.Errorf("%v: explain says %q, which the playground has not:\n%s", tt.args, part, page)
				}
			}
		}
		rendered := explain(append(args, "--render", "json")...)
		_, pre, shown := strings.Cut(answer, "<pre tabindex=\"0\">")
		if shown != (rendered != "") {
			t.Errorf("%v: a Nomad job is shown: %t, want %t", tt.args, shown, rendered != "")
			continue
		}
		if !shown {
			continue
		}
		pre, _, _ = strings.Cut(pre, "</pre>")
		var got, want any
		must(t, json.Unmarshal([]byte(html.UnescapeString(pre)), &got))
		must(t, json.Unmarshal([]byte(rendered), &want))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v: the Nomad job on the page is another than that of explain --render:\n%s\n%s", tt.args, pre, rendered)
		}
	}
}
