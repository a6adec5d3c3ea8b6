package webhook_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/webhook"
)

// edit returns the queued body with the field at a path such as
// workflow_job.id set to a JSON value, or taken out when value is "".
func edit(t testing.TB, path, value string) string {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal([]byte(queued), &body); err != nil {
		t.Fatal(err)
	}
	keys := strings.Split(path, ".")
	at := body
	for _, k := range keys[:len(keys)-1] {
		at = at[k].(map[string]any)
	}
	delete(at, keys[len(keys)-1])
	if value != "" {
		at[keys[len(keys)-1]] = json.RawMessage(value)
	}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBadBodiesAreRefusedWithTheFieldsName(t *testing.T) {
	huge := strings.Repeat("9", 400)
	for _, tt := range []struct{ name, body, text string }{
		{"empty", "", "not JSON"},
		{"not JSON", "action=queued", "not JSON: invalid character 'a' looking for beginning of value at byte 1"},
		{"truncated", queued[:200], "not JSON: unexpected end of JSON input"},
		{"binary", "\x00\xff\x1f\x8b", "not JSON"},
		{"two values", queued + queued, "not JSON"},
		{"an array", "[]", "the body must be an object, not array"},
		{"null", "null", "action is missing"},
		{"an empty object", "{}", "action is missing"},
		{"no job", edit(t, "workflow_job", ""), "workflow_job.id is missing"},
		{"job is a string", edit(t, "workflow_job", `"x"`), "workflow_job must be an object, not string"},
		{"no ID", edit(t, "workflow_job.id", ""), "workflow_job.id is missing"},
		{"ID is null", edit(t, "workflow_job.id", "null"), "workflow_job.id is missing"},
		{"ID is a string", edit(t, "workflow_job.id", `"1"`), "workflow_job.id must be a whole number, not string"},
		{"ID is a fraction", edit(t, "workflow_job.id", "1.5"), "workflow_job.id must be a whole number, not number 1.5"},
		{"ID is huge", edit(t, "workflow_job.id", huge), "workflow_job.id must be a whole number, not number 999"},
		{"ID is negative", edit(t, "workflow_job.id", "-1"), "workflow_job.id must be positive"},
		{"no run", edit(t, "workflow_job.run_id", ""), "workflow_job.run_id is missing"},
		{"run is negative", edit(t, "workflow_job.run_id", "-7"), "workflow_job.run_id must be positive"},
		{"attempt 0", edit(t, "workflow_job.run_attempt", "0"), "workflow_job.run_attempt must be positive"},
		{"no status", edit(t, "workflow_job.status", ""), "workflow_job.status is missing"},
		{"no name", edit(t, "workflow_job.name", ""), "workflow_job.name is missing"},
		{"name is a number", edit(t, "workflow_job.name", "1"), "workflow_job.name must be a string, not number"},
		{"no labels", edit(t, "workflow_job.labels", ""), "workflow_job.labels is missing"},
		{"labels are null", edit(t, "workflow_job.labels", "null"), "workflow_job.labels is missing"},
		{"labels are a string", edit(t, "workflow_job.labels", `"linux"`), "workflow_job.labels must be an array, not string"},
		{"a label is a number", edit(t, "workflow_job.labels", `["linux", 1]`), "workflow_job.labels must be a string, not number"},
		{"a label is an object", edit(t, "workflow_job.labels", `[{}]`), "workflow_job.labels must be a string, not object"},
		{"no repository", edit(t, "repository", ""), "repository.owner.login is missing"},
		{"no owner", edit(t, "repository.owner", ""), "repository.owner.login is missing"},
		{"no repository name", edit(t, "repository.name", ""), "repository.name is missing"},
		{"a repository name with a slash", edit(t, "repository.name", `"../x"`), `repository.name "../x" is not`},
		{"a repository name of dots", edit(t, "repository.name", `".."`), `repository.name ".." is not`},
		{"an owner with a line break", edit(t, "repository.owner.login", `"a\nb"`), `repository.owner.login "a\nb" is not`},
		{"an owner with an interpolation", edit(t, "repository.owner.login", `"${attr.x}"`), `repository.owner.login "${attr.x}" is not`},
		{"a long repository name", edit(t, "repository.name", `"`+strings.Repeat("a", 101)+`"`), "is not a repository's name"},
		{"private is a string", edit(t, "repository.private", `"true"`), "repository.private must be true or false, not string"},
		{"a visibility nobody knows", edit(t, "repository.visibility", `"secret"`), `repository.visibility "secret" must be`},
		{"deep nesting", strings.Repeat(`{"a":`, 20000), "not JSON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHook(t)
			want(t, h.send(request(tt.body)), http.StatusBadRequest, tt.text)
			h.storedNothing(t)
		})
	}
}

func decode(t *testing.T, body string) router.Delivery {
	t.Helper()
	d, err := webhook.Decode([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOldShapesGetDefaults(t *testing.T) {
	d := decode(t, `{
  "action": "completed",
  "workflow_job": {"id": 1, "run_id": 2, "status": "completed", "conclusion": "success", "name": "x", "labels": []},
  "repository": {"name": "web", "private": true, "owner": {"login": "acme"}}
}`)
	wanted := router.Delivery{Action: "completed", Status: "completed", Job: router.Job{
		ID: 1, RunID: 2, Attempt: 1, Name: "x", Labels: []string{}, Conclusion: "success",
		Repo: router.Repo{Owner: "acme", Name: "web", FullName: "acme/web", Private: true},
	}}
	if diff := cmp.Diff(wanted, d); diff != "" {
		t.Errorf("got (+), want (-):\n%s", diff)
	}
}

func TestPrivateFollowsFromVisibility(t *testing.T) {
	body := edit(t, "repository.private", "")
	for visibility, private := range map[string]bool{`"public"`: false, `"private"`: true, `"internal"`: true, "null": false} {
		d := decode(t, strings.Replace(body, `"visibility":"internal"`, `"visibility":`+visibility, 1))
		if d.Job.Repo.Private != private {
			t.Errorf("visibility %s: got private %t, want %t", visibility, d.Job.Repo.Private, private)
		}
	}
}

func TestTheRunnerCountsOnlyOnceItHasTheJob(t *testing.T) {
	body := strings.Replace(edit(t, "workflow_job.runner_name", `"r"`), `"runner_name":`, `"runner_id":7,"runner_name":`, 1)
	for action, name := range map[string]string{"queued": "", "waiting": "", "in_progress": "r", "completed": "r"} {
		d := decode(t, strings.Replace(body, `"action":"queued"`, `"action":"`+action+`"`, 1))
		if d.Job.RunnerName != name || (d.RunnerID == 7) != (name != "") {
			t.Errorf("%s: got runner %q with ID %d, want %q", action, d.Job.RunnerName, d.RunnerID, name)
		}
	}
}

func TestAJobThatDeploysToAnEnvironmentIsTold(t *testing.T) {
	for value, want := range map[string]bool{"": false, "null": false, `{"environment": "production"}`: true} {
		if d, err := webhook.Decode([]byte(edit(t, "deployment", value))); err != nil || d.Deploys != want {
			t.Errorf("with the deployment %q it deploys: %t, %v; want %t", value, d.Deploys, err, want)
		}
	}
}

func TestStrangersStringsAreCut(t *testing.T) {
	long, _ := json.Marshal(strings.Repeat("é", 3000))
	for _, field := range []string{"workflow_job.name", "workflow_job.status", "workflow_job.workflow_name", "workflow_job.head_branch", "sender.login"} {
		d := decode(t, edit(t, field, string(long)))
		for _, s := range []string{d.Job.Name, d.Status, d.Job.Workflow, d.Job.Branch, d.Job.Sender} {
			if n := utf8.RuneCountInString(s); n > 256 || !utf8.ValidString(s) {
				t.Errorf("%s: a string of %d characters came through", field, n)
			}
		}
	}
	many, _ := json.Marshal(append(make([]string, 200), strings.Repeat("é", 300)))
	if n := len(decode(t, edit(t, "workflow_job.labels", string(many))).Job.Labels); n != 101 {
		t.Errorf("got %d labels, want one more than the rules take", n)
	}
	d := decode(t, edit(t, "workflow_job.labels", `["a b", "`+strings.Repeat("é", 300)+`", "${x}\n\u0000", "\ud800"]`))
	wanted := []string{"a b", strings.Repeat("é", 257), "${x}\n\x00", "\ufffd"}
	if diff := cmp.Diff(wanted, d.Job.Labels); diff != "" {
		t.Errorf("got (+), want (-):\n%s", diff)
	}
	for _, u := range []string{`"javascript:alert(1)"`, `"https://x/\"><script>"`, `"https://x/\n"`, `"https://` + strings.Repeat("a", 3000) + `"`} {
		if d := decode(t, edit(t, "workflow_job.html_url", u)); d.Job.URL != "" {
			t.Errorf("the link %s came through as %q", u, d.Job.URL)
		}
	}
}

// payloadDir holds GitHub's own examples, where they are at hand.
const payloadDir = "../../../shared/github/payloads"

func TestGitHubsOwnExamples(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(payloadDir, "*.json"))
	if len(files) == 0 {
		t.Skipf("no examples in %s", payloadDir)
	}
	stored := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			h := newHook(t)
			r := request(string(body))
			event, rest, _ := strings.Cut(filepath.Base(file), ".")
			r.Header.Set("X-GitHub-Event", event)
			if event == "ping" {
				want(t, h.send(r), http.StatusOK, "ok")
				return
			}
			want(t, h.send(r), http.StatusAccepted, "")
			action, _, _ := strings.Cut(rest, ".")
			if len(h.got) != 1 || h.got[0].Action != action || h.got[0].Job.ID == 0 || h.got[0].Job.Attempt != 1 ||
				len(h.got[0].Job.Labels) == 0 || h.got[0].Job.Repo.Owner == "" {
				t.Errorf("stored %+v", h.got)
			}
			if strings.HasSuffix(file, "queued.api.github.com.6.json") && h.got[0].Status != "waiting" {
				t.Errorf("got status %q, want waiting", h.got[0].Status)
			}
			stored++
		})
	}
	if stored != 6 {
		t.Errorf("%d examples were stored, want 6", stored)
	}
}

func FuzzDelivery(f *testing.F) {
	f.Add([]byte(queued), "application/json", "workflow_job", "id-1", "", true)
	f.Add([]byte(queued), "application/json; charset=utf-8", "workflow_job", "id-1", sign(secret, []byte(queued)), false)
	f.Add([]byte(edit(f, "workflow_job.labels", `["${x}", "a\nb", ""]`)), "application/json", "workflow_job", "id-1", "", true)
	f.Add([]byte(`{"action": "waiting"`), "application/json", "workflow_job", "id-1", "sha256=", true)
	f.Add([]byte(`{}`), "text/plain", "ping", "", "sha1=00", false)
	f.Fuzz(func(t *testing.T, body []byte, contentType, event, id, signature string, signed bool) {
		h := newHook(t)
		r := request(string(body))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("X-GitHub-Event", event)
		r.Header.Set("X-GitHub-Delivery", id)
		if !signed {
			r.Header.Set("X-Hub-Signature-256", signature)
			signed = strings.EqualFold(signature, sign(secret, body)) || strings.EqualFold(signature, sign(oldSecret, body))
		}
		w := h.send(r)
		switch w.Code {
		case 200, 202, 204, 400, 401, 415:
		default:
			t.Errorf("answered %d %q", w.Code, w.Body)
		}
		if (w.Code == http.StatusAccepted) != (len(h.got) == 1) {
			t.Errorf("answered %d, stored %+v", w.Code, h.got)
		}
		if !signed && (w.Code < 400 || len(h.got) != 0) {
			t.Errorf("an unsigned request is answered %d, stored %+v", w.Code, h.got)
		}
		for _, d := range h.got {
			j := d.Job
			if j.ID <= 0 || j.RunID <= 0 || j.Attempt <= 0 || j.Name == "" || j.Repo.Owner == "" || j.Repo.Name == "" || len(j.Labels) > 101 || d.ID != id {
				t.Errorf("stored %+v", d)
			}
		}
	})
}
