package web_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/web"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

// book is a Rulebook in memory: its hash is a number that grows.
type book struct {
	mu       sync.Mutex
	files    []rules.File
	versions []router.KeptRules // the newest first
	jobs     []rules.Record
	refuse   error // of Apply
	checks   atomic.Int32
	checking chan struct{} // not nil: a check waits for it
}

const goodRules = "version: 1\nlabels: { linux: {} }\nrules:\n  - { name: all, if: has(\"linux\"), deny: no }\n"

func newBook() *book {
	b := &book{}
	b.put(router.RulesEdit{Files: []rules.File{{Name: "rules.yaml", Source: []byte(goodRules)}}, Origin: "start"})
	return b
}

func (b *book) put(a router.RulesEdit) {
	id := int64(len(b.versions) + 1)
	b.files = a.Files
	b.versions = append([]router.KeptRules{{ID: id, At: t0, Hash: fmt.Sprint("hash", id), Who: a.Who, Origin: a.Origin, Note: a.Note, Files: a.Files}}, b.versions...)
}

func (b *book) Files(context.Context) ([]rules.File, string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.files, b.versions[0].Hash, nil
}

func (b *book) Check(ctx context.Context, files []rules.File) (router.RulesCheck, *rules.Set, error) {
	b.checks.Add(1)
	if b.checking != nil {
		<-b.checking
	}
	set, err := rules.Load(ctx, files...)
	var faults rules.Diagnostics
	if errors.As(err, &faults) {
		return router.RulesCheck{Findings: faults}, nil, nil
	}
	report := set.Test(ctx, set.Tests())
	return router.RulesCheck{Good: report.Failed == 0, Findings: set.Lint(ctx, nil), Tests: &report}, set, err
}

func (b *book) Apply(_ context.Context, a router.RulesEdit) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.refuse != nil:
		return b.refuse
	case a.Base != b.versions[0].Hash:
		return router.ErrRulesChanged
	}
	b.put(a)
	return nil
}

func (b *book) Recent(_ context.Context, _ time.Time, within router.Scope) iter.Seq2[rules.Record, error] {
	return func(yield func(rules.Record, error) bool) {
		for _, r := range b.jobs {
			if within.Has(router.Repo{Owner: r.Repo.Owner, Name: r.Repo.Name}) && !yield(r, nil) {
				return
			}
		}
	}
}

func (b *book) RulesVersions(context.Context) ([]router.KeptRules, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.versions, nil
}

func (b *book) RulesVersion(_ context.Context, id int64) (router.KeptRules, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range b.versions {
		if v.ID == id {
			return v, nil
		}
	}
	return router.KeptRules{}, router.ErrNotFound
}

func (b *book) Jobspecs() []string { return []string{"docker-linux"} }

func record(id int64, owner string, labels ...string) rules.Record {
	return rules.Record{ID: id, Facts: rules.Facts{Labels: labels, Repo: rules.Repo{Owner: owner, Name: "web", FullName: owner + "/web", Private: true}, Job: rules.Job{Name: "build"}, Run: &rules.Run{}}}
}

func serveRules(t *testing.T, edit bool) (*server, *book) {
	b := newBook()
	return serve(t, func(c *web.Config) {
		c.Rulebook, c.AllowEdit = b, edit
		c.Now = func() time.Time { return t0 }
	}), b
}

// submit sends a form and wants this status.
func (s *server) submit(path string, form url.Values, status int) (body, goTo string) {
	s.t.Helper()
	req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8081"+path, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, req)
	if rec.Code != status {
		s.t.Errorf("POST %s = %d, want %d: %s", path, rec.Code, status, rec.Body)
	}
	return rec.Body.String(), rec.Header().Get("Location")
}

func draft(do, base, source string) url.Values {
	return url.Values{"do": {do}, "base": {base}, "name": {"rules.yaml"}, "source": {strings.ReplaceAll(source, "\n", "\r\n")}, "days": {"7"}, "note": {"why"}}
}

func wants(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, want := range texts {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
}

func asJSON(v any) func(*http.Request) {
	b, _ := json.Marshal(v)
	return sends(string(b))
}

func drafted(source string) map[string]any {
	return map[string]any{"files": []map[string]string{{"name": "rules.yaml", "source": source}}}
}

func TestADraftIsCheckedAndComparedByTheAPI(t *testing.T) {
	s, b := serveRules(t, false)
	c := decode[router.RulesCheck](t, s.call("POST", "/check", http.StatusOK, asJSON(drafted("version: 1\nrules: 1\n"))))
	if c.Good || len(c.Findings) == 0 || c.Findings[0].File != "rules.yaml" || c.Findings[0].Line != 2 || c.Tests != nil {
		t.Errorf("a check of faults: %+v", c)
	}
	tests := "tests:\n  - { name: t, labels: [self-hosted, linux], repo: acme/web, expect: { outcome: denied } }\n"
	if c = decode[router.RulesCheck](t, s.call("POST", "/check", http.StatusOK, asJSON(drafted(goodRules+tests)))); !c.Good || c.Tests.Passed != 1 {
		t.Errorf("a check: %+v", c)
	}

	b.jobs = []rules.Record{record(5, "acme", "self-hosted", "linux", "gpu"), record(6, "acme", "self-hosted", "linux"), record(7, "beta", "self-hosted", "linux")}
	i := decode[api.Impact](t, s.call("POST", "/diff", http.StatusOK, asJSON(drafted(goodRules))))
	if i.Jobs != 3 || i.Changed != 3 || i.Undecided != 0 || i.Groups[0].Count != 2 || i.Groups[0].Rule != "all" || i.Groups[0].Examples[0].ID != 6 || i.Days != 7 || !i.Since.Equal(t0.AddDate(0, 0, -7)) {
		t.Errorf("a diff: %+v", i)
	}

	for _, tt := range []struct {
		path   string
		body   any
		status int
		detail string
	}{
		{"/check", map[string]any{}, 400, "files is missing: want such as"},
		{"/check", map[string]any{"files": []map[string]string{{"name": "../rules.yaml", "source": ""}}}, 400, `"../rules.yaml" is not the name of a rules file`},
		{"/check", map[string]any{"files": []map[string]string{{"name": "a.yaml", "source": ""}, {"name": "a.yaml", "source": ""}}}, 400, `the draft has two files "a.yaml"`},
		{"/check", map[string]any{"file": 1}, 400, "the body is not a draft: "},
		{"/check", drafted(strings.Repeat("#", 4<<20+1)), 413, "the draft has 4194305 bytes; the maximum is 4194304"},
		{"/check", drafted(strings.Repeat("#", 13<<20)), 413, "the body has more than 12582912 bytes"},
		{"/diff", drafted("rules: 1"), 422, "the draft has errors, so it decides nothing: rules.yaml:1:1: "},
		{"/diff", map[string]any{"days": 91, "files": drafted(goodRules)["files"]}, 400, "days 91: want a number from 1 to 90"},
	} {
		if p := decode[problem.Details](t, s.call("POST", tt.path, tt.status, asJSON(tt.body))); !strings.HasPrefix(p.Detail, tt.detail) {
			t.Errorf("POST %s = %s, want %s", tt.path, p.Detail, tt.detail)
		}
	}
	none := serve(t)
	none.call("POST", "/check", http.StatusNotFound, asJSON(drafted(goodRules)))
	if page := none.get("/", http.StatusOK); strings.Contains(page, `href="/rules"`) {
		t.Error("a server without files of rules shows where they would be")
	}

	words := decode[api.Completion](t, s.call("GET", "/rules/schema", http.StatusOK))
	if len(words.Variables) == 0 || len(words.Functions) == 0 || words.Jobspecs[0] != "docker-linux" {
		t.Errorf("words: %+v", words)
	}
}

func TestTheRulesPageTriesADraft(t *testing.T) {
	s, b := serveRules(t, true)
	page := s.get("/rules", http.StatusOK)
	wants(t, page, `id="draft"`, `id="editor"`, `id="diagnostics"`, `id="impact"`, `id="apply"`, `id="versions"`, "name: all, if: has(&#34;linux&#34;)", "/assets/editor.")
	if strings.Contains(s.get("/labels", http.StatusOK), "/assets/editor.") {
		t.Error("another page loads the editor")
	}
	b.jobs = []rules.Record{record(6, "acme", "self-hosted", "linux")}
	page, _ = s.submit("/rules", draft("impact", "hash1", strings.Replace(goodRules, "name: all", "name: some", 1)), http.StatusOK)
	wants(t, page, "<strong>1 of 1 jobs</strong> of the last 7 days", `<a href="/jobs/6">acme/web · build</a>`, "<ins>some</ins>", `<span class="add">&#43;  - { name: some`, "Good: the server would accept this")

	page, _ = s.submit("/rules", draft("check", "hash1", "version: 1\nrules: <script>1</script>\n"), http.StatusOK)
	wants(t, page, `data-file="rules.yaml" data-line="2"`, "The server would refuse this", "&lt;script&gt;1")
	if strings.Contains(page, "<script>1") {
		t.Error("the draft is markup of the page")
	}
	tests := "tests:\n  - { name: t, labels: [self-hosted, linux], repo: acme/web, expect: { outcome: routed } }\n"
	page, _ = s.submit("/rules", draft("check", "hash1", goodRules+tests), http.StatusOK)
	wants(t, page, "0 of 1 tests pass", "expected <code>routed</code>, got <code>denied</code>", `data-line="6"`)
	page, _ = s.submit("/rules", draft("impact", "hash1", "rules: 1"), http.StatusOK)
	wants(t, page, "The draft has errors, so it decides nothing yet.")
	for want, change := range map[string]func(url.Values){
		"want check, impact or apply":      func(f url.Values) { f.Set("do", "x") },
		"want a number from 1 to 90":       func(f url.Values) { f.Set("days", "900") },
		"is not the name of a rules file":  func(f url.Values) { f.Set("name", "/etc/passwd") },
		"2 names of files and 1 files":     func(f url.Values) { f.Add("name", "x.yaml") },
		"the note has more than 500 chara": func(f url.Values) { f.Set("note", strings.Repeat("x", 501)) },
	} {
		form := draft("check", "hash1", goodRules)
		change(form)
		page, _ = s.submit("/rules", form, http.StatusBadRequest)
		wants(t, page, want)
	}
	if len(b.versions) != 1 {
		t.Error("trying a draft changed the rules")
	}
	if got := s.get("/rules/files/rules.yaml", http.StatusOK); got != goodRules {
		t.Errorf("the download is %q", got)
	}
	s.get("/rules/files/other.yaml", http.StatusNotFound)
}

func TestADraftIsAppliedUnlessTheRulesChangedMeanwhile(t *testing.T) {
	s, b := serveRules(t, true)
	mine, theirs := strings.Replace(goodRules, "all", "mine", 1), strings.Replace(goodRules, "all", "theirs", 1)
	_, goTo := s.submit("/rules", draft("apply", "hash1", theirs), http.StatusSeeOther)
	if v := b.versions[0]; goTo != "/rules?done=applied" || string(v.Files[0].Source) != theirs || v.Who != "local" || v.Note != "why" || v.Origin != "applied" {
		t.Errorf("then to %s; the newest version is %+v", goTo, v)
	}
	wants(t, s.get(goTo, http.StatusOK), "The draft is in force.")

	page, _ := s.submit("/rules", draft("apply", "hash1", mine), http.StatusConflict)
	wants(t, page, `id="conflict"`, "The rules were changed meanwhile", "name: mine, if", `<span class="add">&#43;  - { name: theirs`, `<span class="add">&#43;  - { name: mine`,
		`name="base" value="hash1"`, `name="over" value="hash2"`)
	if string(b.files[0].Source) != theirs {
		t.Error("the other draft was overwritten")
	}
	// Once more without saying so, or having seen another version, is no yes.
	s.submit("/rules", draft("apply", "hash1", mine), http.StatusConflict)
	form := draft("apply", "hash1", mine)
	form.Set("over", "hash1")
	s.submit("/rules", form, http.StatusConflict)
	form.Set("over", "hash2")
	s.submit("/rules", form, http.StatusSeeOther)
	if string(b.files[0].Source) != mine {
		t.Errorf("the files are %s", b.files[0].Source)
	}
	if log := s.log.String(); strings.Count(log, `who=local by="this machine" did=apply what="rules: why" result=`) != 4 || strings.Count(log, `who=local by="this machine" did=apply what="rules, over a newer version: why" result=ok`) != 1 {
		t.Errorf("the audit trail does not say what replaced a newer version: %s", log)
	}

	b.refuse = &router.RulesRefusedError{Faults: rules.Diagnostics{{File: "rules.yaml", Line: 4, Column: 5, Message: "nomad says <no>"}}}
	page, _ = s.submit("/rules", draft("apply", "hash3", goodRules), http.StatusUnprocessableEntity)
	wants(t, page, "Not applied", "nomad says &lt;no&gt;", "name: all")
	b.refuse = &router.ConflictError{Reason: "rules.yaml cannot be written here"}
	page, _ = s.submit("/rules", draft("apply", "hash3", goodRules), http.StatusConflict)
	wants(t, page, "rules.yaml cannot be written here")
}

// The page lists fewer versions than are kept.
func TestADraftManyVersionsBehindShowsWhatChanged(t *testing.T) {
	s, b := serveRules(t, true)
	for range 15 {
		b.put(router.RulesEdit{Files: []rules.File{{Name: "rules.yaml", Source: []byte(strings.Replace(goodRules, "all", "theirs", 1))}}})
	}
	page, _ := s.submit("/rules", draft("apply", "hash1", goodRules+"# mine\n"), http.StatusConflict)
	wants(t, page, "The rules were changed meanwhile", `<span class="del">-  - { name: all`, `<span class="add">&#43;  - { name: theirs`)
}

func TestAnEarlierVersionIsOneClickBack(t *testing.T) {
	s, b := serveRules(t, true)
	s.submit("/rules", draft("apply", "hash1", strings.Replace(goodRules, "all", "next", 1)), http.StatusSeeOther)
	wants(t, s.get("/rules/versions", http.StatusOK), `href="/rules/versions/1"`, `href="/rules/versions/2"`, "why", "the files")
	page := s.get("/rules/versions/1", http.StatusOK)
	wants(t, page, `<span class="del">-  - { name: next`, `name="base" value="hash2"`, "Put this version back")
	wants(t, s.get("/rules/versions/2", http.StatusOK), "the files are this version")
	s.get("/rules/versions/9", http.StatusNotFound)
	s.get("/rules/versions/x", http.StatusNotFound)

	s.submit("/rules/versions/1/put-back", url.Values{"base": {"hash1"}}, http.StatusConflict)
	_, goTo := s.submit("/rules/versions/1/put-back", url.Values{"base": {"hash2"}}, http.StatusSeeOther)
	if v := b.versions[0]; goTo != "/rules?done=back" || string(v.Files[0].Source) != goodRules || v.Origin != "put back" || v.Note != "version 1" {
		t.Errorf("then to %s; the newest version is %+v", goTo, v)
	}
}

func TestWithoutAllowEditNobodyChangesTheRules(t *testing.T) {
	s, b := serveRules(t, false)
	page := s.get("/rules", http.StatusOK)
	if strings.Contains(page, `id="apply"`) {
		t.Error("the page offers to apply")
	}
	wants(t, page, "--allow-edit")
	page, _ = s.submit("/rules", draft("apply", "hash1", goodRules+"# x\n"), http.StatusForbidden)
	wants(t, page, "the server runs without --allow-edit")
	s.submit("/rules/versions/1/put-back", url.Values{"base": {"hash1"}}, http.StatusForbidden)
	if len(b.versions) != 1 {
		t.Error("the rules were changed")
	}
}

// Who only looks may try drafts on the jobs that he sees, and change nothing.
func TestWhoMayTryADraftAndWhoMayApplyIt(t *testing.T) {
	b := newBook()
	b.jobs = []rules.Record{record(6, "acme", "self-hosted", "linux"), record(7, "beta", "self-hosted", "linux")}
	s := serve(t, func(c *web.Config) {
		c.Rulebook, c.AllowEdit = b, true
		token := func(name string, role auth.Role, repos router.Scope) auth.Token {
			return auth.Token{Name: name, SHA256: sha256.Sum256([]byte(tokenOf(name))), Role: role, Repos: repos}
		}
		c.Access = func() (*auth.Access, error) {
			return &auth.Access{Tokens: []auth.Token{token("team", auth.Viewer, router.Scope{"beta/*"}), token("operator", auth.Operator, nil), token("editor", auth.Editor, nil)}}, nil
		}
	})
	ask := func(name, path string, form url.Values, status int) string {
		t.Helper()
		req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8081"+path, strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if name != "" {
			as(name)(req)
		}
		rec := httptest.NewRecorder()
		s.handler.ServeHTTP(rec, req)
		if rec.Code != status {
			t.Errorf("%s: POST %s = %d, want %d: %s", name, path, rec.Code, status, rec.Body)
		}
		return rec.Body.String()
	}
	changed := strings.Replace(goodRules, "all", "other", 1)
	page := ask("team", "/rules", draft("impact", "hash1", changed), http.StatusOK)
	wants(t, page, "<strong>1 of 1 jobs</strong>", `href="/jobs/7"`)
	if strings.Contains(page, "acme") || strings.Contains(page, `id="apply"`) {
		t.Errorf("a team sees another's job, or may apply:\n%s", page)
	}
	for _, name := range []string{"team", "operator"} {
		ask(name, "/rules", draft("apply", "hash1", changed), http.StatusForbidden)
		ask(name, "/rules/versions/1/put-back", url.Values{"base": {"hash1"}}, http.StatusForbidden)
	}
	ask("nobody", "/rules", draft("apply", "hash1", changed), http.StatusUnauthorized)
	if len(b.versions) != 1 {
		t.Error("the rules were changed by who may not")
	}
	ask("editor", "/rules", draft("apply", "hash1", changed), http.StatusSeeOther)
	if b.versions[0].Who != "editor" {
		t.Errorf("the new version is %+v", b.versions[0])
	}
}

// A file with CR LF keeps them though browsers send every line break so.
func TestLineBreaksStayAsTheyAre(t *testing.T) {
	s, b := serveRules(t, true)
	windows := strings.ReplaceAll(goodRules, "\n", "\r\n")
	b.files = []rules.File{{Name: "rules.yaml", Source: []byte(windows)}}
	s.submit("/rules", draft("apply", "hash1", goodRules+"# more\n"), http.StatusSeeOther)
	if got := string(b.files[0].Source); got != windows+"# more\r\n" {
		t.Errorf("the file is %q", got)
	}
}

func TestOnlyTheRulesPageLetsItsEditorAddStyles(t *testing.T) {
	s, _ := serveRules(t, true)
	policy := func(path string) string {
		rec := httptest.NewRecorder()
		s.handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8081"+path, nil))
		return rec.Header().Get("Content-Security-Policy")
	}
	one, two := policy("/rules"), policy("/rules")
	if !strings.Contains(one, "style-src 'self' 'nonce-") || one == two || strings.Contains(policy("/labels"), "nonce") {
		t.Errorf("the policies are %s and %s, and of another page %s", one, two, policy("/labels"))
	}
	editor, err := os.ReadFile("assets/editor.js")
	if err != nil || len(editor) > 400_000 || !strings.Contains(string(editor[:4000]), "MIT License") {
		t.Errorf("the editor has %d bytes, %v; want at most 400,000, with its licences", len(editor), err)
	}
}
