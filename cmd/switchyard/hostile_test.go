package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/net/html"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/routertest"
)

// strangers has markup, a script, escapes of a terminal, marks that turn the
// direction of writing, NUL, and what would be a line of its own in a log.
const strangers = `"><script>boom()</script><img src=x onerror=boom()></td></table>'{{7}}${7}<!--` + "`boom`" +
	"\x1b[31mred\x1b]0;title\x07\u202eturned\u2066\u200f\x00\x01\x9b\r\nlevel=ERROR msg=forged\u2028"

// unprintable is the first character of s that does something instead of
// being seen; a line may end.
func unprintable(s string) string {
	for _, r := range s {
		if r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
			return fmt.Sprintf("%U", r)
		}
	}
	return ""
}

// Strangers' strings come by the webhook, and are text on every page, in every
// answer, in the logs and on a terminal.
func TestStrangersStringsAreText(t *testing.T) {
	var jsonLog, textLog logged
	asText, err1 := newLogger(&textLog, "text", "debug")
	inJSON, err2 := newLogger(&jsonLog, "json", "debug")
	must(t, errors.Join(err1, err2))
	y := newYard(t, yardConfig{log: slog.New(slog.NewMultiHandler(inJSON.Handler(), asText.Handler()))})
	stream := follow(t, y.console+"/api/v1/events")
	long := strings.Repeat("longname", 1250)
	linux := []string{"self-hosted", "linux"}
	var ids []int64
	for _, s := range []string{strangers, long} {
		spec := func(labels ...string) githubsim.JobSpec {
			return githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Name: s, Workflow: s, Branch: s, Sender: s, Labels: labels, Duration: time.Hour}
		}
		ids = append(ids,
			y.queue(spec(append(linux, "gpus=8")...), router.Dispatched),
			y.queue(spec(append(linux, "x64")...), router.Running),
			y.queue(spec(append(linux, s)...), router.Unroutable),
			y.queue(spec(append(linux, "zone="+s)...), router.Unroutable),
			y.queue(spec(s), router.Ignored),
		)
		// What no repository of GitHub's is called is refused at the door, or is text, too.
		odd := spec(linux...)
		odd.Owner, odd.Repo = s, s
		_ = y.GitHub.Queue(t.Context(), odd)
	}
	// A runner has a stranger's name when it is none of ours.
	for i, s := range []string{strangers, long} {
		id := int64(900_001 + i)
		j := githubsim.Job{ID: id, RunnerID: 5, RunnerName: s, RunnerGroupName: s, CreatedAt: time.Now(), JobSpec: githubsim.JobSpec{
			Owner: "acme", Repo: "web", Private: true, RunID: 77, Name: s, Labels: append(linux, "gpus=8")}}
		for _, action := range []string{"queued", "in_progress", "completed"} {
			j.Status, j.Conclusion = action, ""
			if action == "completed" {
				j.Conclusion = s
			}
			y.deliver(fmt.Sprint(id, action), githubsim.Payload(j, action))
		}
		y.until(func() error {
			j, err := y.Store.Job(t.Context(), id)
			if err == nil && j.State != router.Completed {
				err = fmt.Errorf("job %d is %s, on runner %q, %q", id, j.State, j.RunnerName, j.Conclusion)
			}
			return err
		})
		ids = append(ids, id)
	}
	y.until(func() error {
		runners, err := y.Store.Runners(t.Context(), ids[0])
		if err == nil && (len(runners) == 0 || runners[0].Unplaced == nil) {
			err = fmt.Errorf("Nomad did not say why job %d has no node", ids[0])
		}
		return err
	})

	get := func(path string) (body string, contentType string) {
		t.Helper()
		resp, err := http.Get(y.console + path)
		must(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode >= 500 {
			t.Errorf("GET %.100s = %s, %v", path, resp.Status, err)
		}
		return string(b), resp.Header.Get("Content-Type")
	}

	post := func(path, contentType, body string) string {
		t.Helper()
		resp, err := http.Post(y.console+path, contentType, strings.NewReader(body))
		must(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode >= 500 && resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("POST %s = %s, %v: %.200s", path, resp.Status, err, b)
		}
		return string(b)
	}
	asJSON := func(v any) string {
		b, err := json.Marshal(v)
		must(t, err)
		return string(b)
	}
	// What is asked of the server is answered, and remembered, as text.
	draft := strings.Replace(string(demoRules), "linux: ", "linix: ", 1)
	if draft == string(demoRules) {
		t.Fatal("the draft is no change")
	}
	files := []map[string]string{{"name": "rules.yaml", "source": draft}}
	answers := map[string]string{
		"sync":    post("/api/v1/sync", "application/json", asJSON(map[string]string{"repo": "acme/" + strings.ReplaceAll(strangers, "/", "")})),
		"explain": post("/api/v1/explain", "application/json", asJSON(map[string]any{"labels": []string{"self-hosted", strangers}, "repo": map[string]any{"full_name": "acme/web", "private": true}})),
		"a job":   post("/api/v1/explain", "application/json", asJSON(map[string]any{"job_id": ids[2]})),
		"check":   post("/api/v1/check", "application/json", asJSON(map[string]any{"files": files})),
		"a fault": post("/api/v1/check", "application/json", asJSON(map[string]any{"files": []map[string]string{{"name": strangers, "source": "rules: [" + strangers}}})),
		"diff":    post("/api/v1/diff", "application/json", asJSON(map[string]any{"files": files, "days": 1})),
	}
	impact := post("/rules", "application/x-www-form-urlencoded", url.Values{"do": {"impact"}, "days": {"1"}, "name": {"rules.yaml"}, "source": {draft}}.Encode())

	pages := []string{"/rules/versions", "/rules/versions/1", "/rules/versions/" + url.PathEscape(strangers), "/", "/jobs", "/runners", "/labels", "/playground", "/rules", "/fleet", "/usage?by=workflow", "/whatif", "/audit"}
	for _, id := range ids {
		pages = append(pages, fmt.Sprintf("/jobs/%d", id))
	}
	for _, s := range []string{strangers, long[:900], long} {
		q := url.QueryEscape(s)
		pages = append(pages, "/jobs?label="+q, "/jobs?repo="+q, "/jobs?rule="+q, "/jobs?state="+q, "/labels?q="+q, "/whatif?percent="+q, "/whatif?days="+q, "/fleet?rule="+q, "/runners?state="+q, "/runners?cursor="+q,
			"/playground?repo=acme/web&labels=self-hosted,linux,"+q, "/playground?repo="+q+"&labels=linux", "/playground?repo=acme/web&labels=linux&visibility="+q+"&branch="+q+"&sender="+q+"&host="+q, "/"+url.PathEscape(s))
	}
	shown := 0
	for _, path := range pages {
		body, contentType := get(path)
		if !strings.HasPrefix(contentType, "text/html") {
			t.Errorf("GET %.100s is %s", path, contentType)
		}
		if at := unprintable(strings.ReplaceAll(body, "\u202f", "")); at != "" {
			t.Errorf("GET %.100s has a raw %s", path, at)
		}
		if len(body) > 200_000 {
			t.Errorf("GET %.100s has %d bytes", path, len(body))
		}
		if strings.Contains(body, "boom()") {
			shown++
		}
		for _, fault := range strangersMarkup(t, body) {
			t.Errorf("GET %.100s: %s", path, fault)
		}
	}
	for _, fault := range strangersMarkup(t, impact) {
		t.Errorf("the impact of a draft: %s", fault)
	}
	if !strings.Contains(impact, `id="impact"`) || unprintable(strings.ReplaceAll(impact, "\u202f", "")) != "" {
		t.Errorf("the impact of a draft has a raw %s, or is none: %.300q", unprintable(impact), impact)
	}
	if metrics, _ := get("/metrics"); strings.Contains(metrics, "boom") || strings.Contains(metrics, "longname") || unprintable(metrics) != "" || !strings.Contains(metrics, "switchyard_") {
		t.Errorf("the metrics have a stranger's string: %.3000q", metrics)
	}
	if shown < 10 {
		t.Errorf("only %d pages show the strings: they did not come this far", shown)
	}

	api := []string{"/jobs", "/runners", "/labels", "/rules", "/rules/list", "/fleet", "/audit", "/usage?by=label", "/usage?by=workflow", "/jobs?label=" + url.QueryEscape(strangers), "/jobs?cursor=" + url.QueryEscape(strangers)}
	for _, id := range ids {
		api = append(api, fmt.Sprintf("/jobs/%d", id))
	}
	for _, path := range api {
		body, contentType := get("/api/v1" + path)
		if !strings.Contains(contentType, "json") {
			t.Errorf("GET /api/v1%.100s is %s", path, contentType)
		}
		answers[path] = body
	}
	for what, body := range answers {
		if !json.Valid([]byte(body)) || strings.Contains(body, "<") || unprintable(body) != "" {
			t.Errorf("%.100q is answered by no plain JSON (%s): %.300q", what, unprintable(body), body)
		}
	}

	events := stream()
	if len(events) == 0 {
		t.Error("the stream of changes has nothing")
	}
	for _, line := range events {
		if at := unprintable(line); at != "" || strings.ContainsAny(line, "<") {
			t.Errorf("the stream has a raw %s: %.200q", at, line)
		}
	}

	t.Setenv(envName("server"), y.console)
	history := filepath.Join(t.TempDir(), "history.jsonl")
	other := filepath.Join(t.TempDir(), "other.yaml")
	must(t, os.WriteFile(other, []byte(draft), 0o600))
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	must(t, os.WriteFile(wrong, []byte("rules: [\""+strings.ReplaceAll(strangers, `"`, "")+"\"]\n\u202e: {"), 0o600))
	odd := strings.ReplaceAll(strangers, "\x00", "")
	commands := [][]string{
		{"jobs", "list"}, {"jobs", "list", "--format", "json"}, {"jobs", "list", "--label", strangers}, {"jobs", "list", "--db", y.Database},
		{"runners", "list"}, {"runners", "list", "--format", "json"}, {"runners", "stop", strangers}, {"fleet"}, {"usage", "--by", "workflow"}, {"usage", "--by", "label", "--format", "csv"},
		{"audit"}, {"audit", "--format", "json"}, {"jobs", "sync", "acme/" + strings.ReplaceAll(strangers, "/", "")}, {"rules", "status"}, {"status"}, {"status", "--format", "json"},
		{"jobs", "export", "--db", y.Database}, {"jobs", "export", "--db", y.Database, "--output", history},
		{"diff", y.rules, other, "--history", history}, {"diff", y.rules, other, "--history", y.Database, "--format", "json"}, {"diff", y.rules, other, "--history", history, "--format", "github"},
		{"check", wrong}, {"check", "--format", "json", wrong}, {"check", "--format", "github", wrong},
		{"explain", "--rules", y.rules, "--repo", "acme/web", "--labels", "self-hosted,linux," + odd},
		{"explain", "--rules", y.rules, "--repo", "acme/web", "--labels", "self-hosted,linux," + odd, "--format", "json"},
		{"explain", "--rules", y.rules, "--repo", "acme/web", "--labels", "self-hosted,linux", "--branch", odd, "--render", "json"},
		{"explain", "--rules", y.rules, "--repo", odd, "--labels", "self-hosted,linux"},
	}
	for _, id := range ids {
		commands = append(commands, []string{"jobs", "show", fmt.Sprint(id)}, []string{"jobs", "show", fmt.Sprint(id), "--format", "json"})
	}
	for _, args := range commands {
		var out, errs bytes.Buffer
		run(t.Context(), args, nil, &out, &errs)
		if at := unprintable(out.String() + errs.String()); at != "" {
			t.Errorf("switchyard %.60q prints a raw %s:\n%.2000q", args, at, out.String()+errs.String())
		}
		if strings.Contains(out.String()+errs.String(), "\nlevel=ERROR") {
			t.Errorf("switchyard %.60q prints a line that a stranger made", args)
		}
		if out.Len()+errs.Len() == 0 {
			t.Errorf("switchyard %.60q says nothing", args)
		}
	}
	for line := range strings.Lines(jsonLog.String()) {
		if !json.Valid([]byte(line)) || unprintable(line) != "" {
			t.Errorf("a line of the JSON log: %.300q", line)
		}
	}
	for line := range strings.Lines(textLog.String()) {
		if !strings.HasPrefix(line, "time=") || unprintable(line) != "" {
			t.Errorf("a line of the text log: %.300q", line)
		}
	}
}

// strangersMarkup is what of a page no template has: it was born of a text.
func strangersMarkup(t *testing.T, page string) (faults []string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	must(t, err)
	for n := range doc.Descendants() {
		if n.Type == html.CommentNode {
			faults = append(faults, "a comment: "+n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		for _, a := range n.Attr {
			switch a.Key {
			case "src":
				if !strings.HasPrefix(a.Val, "/assets/") {
					faults = append(faults, fmt.Sprintf("<%s src=%.100q>", n.Data, a.Val))
				}
			case "href", "action", "formaction":
				if u, err := url.Parse(a.Val); err != nil || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" {
					faults = append(faults, fmt.Sprintf("<%s %s=%.100q>", n.Data, a.Key, a.Val))
				}
			}
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || strings.ContainsAny(a.Key, "<>\"'`(){}") {
				faults = append(faults, fmt.Sprintf("<%s %s=%.100q>", n.Data, a.Key, a.Val))
			}
		}
		if n.Data == "script" && (n.FirstChild != nil || len(n.Attr) == 0) {
			faults = append(faults, "a script that stands in the page")
		}
	}
	return faults
}

// deliver sends what GitHub never would.
func (y *yard) deliver(guid string, payload []byte) {
	y.T.Helper()
	req, err := githubsim.NewDelivery(y.T.Context(), "http://"+y.Addr+"/webhooks/github", routertest.Secret, guid, "workflow_job", payload)
	must(y.T, err)
	resp, err := http.DefaultClient.Do(req)
	must(y.T, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusOK {
		y.T.Fatalf("the delivery %s was answered %s", guid, resp.Status)
	}
}

// follow reads server-sent events until the lines so far are asked for.
func follow(t *testing.T, address string) (lines func() []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	var got []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			got = append(got, s.Text())
		}
	}()
	return func() []string {
		cancel()
		<-done
		resp.Body.Close()
		return got
	}
}
