package web

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gorilla/mux"
	"github.com/rogpeppe/go-internal/diff"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

const (
	maxNote        = 500  // characters of what somebody says of a change
	shownVersions  = 10   // beside the editor
	shownDiffLines = 1500 // of one comparison
	shownDiffLine  = 500  // characters of one line of it
)

// rulesPages are the page Rules, with its forms, and the versions of the rules.
type rulesPages struct {
	console  *console
	drafts   *api.Drafts
	rulebook api.Rulebook
}

// rulesView is the data of the page Rules: the draft, and what its check found.
type rulesView struct {
	Status    router.RulesStatus
	Fault     string       // why the files cannot be read; "": they can
	Files     []rules.File // that are edited
	Base      string       // the hash of those that they were made of
	Days      int
	Note      string
	Over      bool // the draft replaces a newer version than that it was made of
	MayApply  bool
	AllowEdit bool   // somebody may apply
	Done      string // what was just done

	Check   *router.RulesCheck
	Sources map[string][]byte // of the files, for excerpts
	Refused bool              // the findings kept it from being applied
	Impact  *api.Impact
	NoDiff  string        // why there is no impact
	rest    []byte        // of a page that was answered in part
	Looking template.HTML // stands for the impact while jobs are looked at; "": they are not
	Changes []fileDiff
	Theirs  *theirs // the files were changed meanwhile

	Versions []router.KeptRules
	More     bool // there are more versions
	Nonce    string
}

// theirs describes how the files changed since a draft was begun.
type theirs struct {
	Hash    string
	Newest  *router.KeptRules // the version that has this hash; nil: it is not kept
	Changes []fileDiff        // from the files that the draft was made of; nil: they are not kept
}

// styleNonce lets the editor add its styles to the page.
func (v rulesView) styleNonce() string { return v.Nonce }

// Excerpt shows the line of a finding.
func (v rulesView) Excerpt(d rules.Diagnostic) string { return d.Excerpt(v.Sources[d.File]) }

// Failed returns the tests that failed.
func (v rulesView) Failed() []rules.TestResult {
	return slices.DeleteFunc(slices.Clone(v.Check.Tests.Tests), func(t rules.TestResult) bool { return t.Passed })
}

// AllTests counts the tests, shown or not.
func (v rulesView) AllTests() int {
	t := v.Check.Tests
	return t.Passed + t.Failed + t.Skipped
}

// newRulesView returns the data of the page for the files as they are.
func (r *rulesPages) newRulesView(req *http.Request) (rulesView, error) {
	v := rulesView{Status: r.console.config.App.RulesStatus(), Days: api.ImpactDays, MayApply: r.mayApply(req) == nil, AllowEdit: r.console.config.AllowEdit, Nonce: rand.Text()}
	files, hash, err := r.rulebook.Files(req.Context())
	if err != nil {
		v.Fault = err.Error()
	}
	v.Files, v.Base = files, hash
	versions, err := r.rulebook.RulesVersions(req.Context())
	if err != nil {
		return v, err
	}
	v.Versions, v.More = versions[:min(len(versions), shownVersions)], len(versions) > shownVersions
	return v, nil
}

func (r *rulesPages) page(req *http.Request) (any, error) {
	p := api.Parameters{Values: req.URL.Query()}
	done := map[string]string{
		"": "", "applied": "The draft is in force.", "back": "The earlier version is in force again.",
	}[p.Text("done")]
	if err := p.End(); err != nil {
		return nil, err
	}
	v, err := r.newRulesView(req)
	v.Done = done
	return v, err
}

func (r *rulesPages) pages() []consolePage {
	inTurn := r.console.api.Turns.Do
	return []consolePage{
		r.main(),
		{"/rules/versions", "rules_versions", "Versions of the rules", false, auth.Viewer, inTurn(func(req *http.Request) (any, error) { return r.rulebook.RulesVersions(req.Context()) })},
		{"/rules/versions/{id}", "rules_version", "", false, auth.Viewer, inTurn(r.versionPage)},
	}
}

func (r *rulesPages) main() consolePage {
	return consolePage{"/rules", "rules", "Rules", true, auth.Viewer, r.console.api.Turns.Do(r.page)}
}

// routes adds what is neither a plain page nor a plain form.
func (r *rulesPages) routes(to *mux.Router) {
	guard := r.console.guard
	// Every viewer may check a draft by this form; apply asks mayApply for the editor's role.
	to.Handle("/rules", guard.Only(auth.Viewer, r.drafts.WithSlot(http.HandlerFunc(r.draftForm)))).Methods(http.MethodPost)
	to.Handle("/rules/files/{name}", guard.Only(auth.Viewer, http.HandlerFunc(r.download))).Methods(http.MethodGet, http.MethodHead)
	to.Handle("/rules/versions/{id}/put-back", guard.Only(auth.Editor, r.console.form(api.Audited(guard, r.putBack)))).Methods(http.MethodPost)
}

// draftForm handles the buttons below the editor: check a draft, show its impact or apply it.
func (r *rulesPages) draftForm(w http.ResponseWriter, req *http.Request) {
	status, v, err := r.readDraftForm(w, req)
	if err != nil {
		r.console.fail(w, req, err)
		return
	}
	switch status {
	case begun:
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(api.WritingDraft)) // a recorder of a test has none
		_, _ = w.Write(v.rest)                                                               // a client that went away needs no answer
		return
	case http.StatusSeeOther:
		http.Redirect(w, req, "/rules?done=applied", status)
		return
	}
	r.console.frame.render(w, req, status, r.main(), v)
}

// begun is the status of a form that was answered in part while it was worked on.
const begun = 0

func (r *rulesPages) readDraftForm(w http.ResponseWriter, req *http.Request) (status int, v rulesView, err error) {
	if err := req.ParseForm(); errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, v, api.TooSlow()
	} else if err != nil {
		return 0, v, formError(err)
	}
	if v, err = r.newRulesView(req); err != nil {
		return 0, v, err
	}
	now, hash := v.Files, v.Base
	form := req.PostForm
	if len(form["name"]) != len(form["source"]) {
		return 0, v, problem.New(http.StatusBadRequest, "the form has %d names of files and %d files", len(form["name"]), len(form["source"]))
	}
	var d api.Draft
	for i, name := range form["name"] {
		// Browsers send line breaks as CR LF.
		source := strings.ReplaceAll(form["source"][i], "\r\n", "\n")
		if at := fileNamed(now, name); at != nil && bytes.Contains(at.Source, []byte("\r\n")) {
			source = strings.ReplaceAll(source, "\n", "\r\n")
		}
		d.Files = append(d.Files, api.DraftFile{Name: name, Source: source})
	}
	if v.Files, err = d.RulesFiles(); err != nil {
		return 0, v, err
	}
	v.Base, v.Note = form.Get("base"), form.Get("note")
	if utf8.RuneCountInString(v.Note) > maxNote {
		return 0, v, problem.New(http.StatusBadRequest, "the note has more than %d characters", maxNote)
	}
	if v.Days, err = strconv.Atoi(form.Get("days")); err != nil || v.Days < 1 || v.Days > api.MaxImpactDays {
		return 0, v, problem.New(http.StatusBadRequest, "days %.20q: want a number from 1 to %d", form.Get("days"), api.MaxImpactDays)
	}
	if form.Get("over") == hash {
		v.Base, v.Over = hash, true // who sent it saw these files, and replaces them
	}
	v.Sources = map[string][]byte{}
	for _, f := range v.Files {
		v.Sources[f.Name] = f.Source
	}
	ctx, done, err := r.drafts.Start(req.Context())
	if err != nil {
		return 0, v, err
	}
	defer done()
	status = http.StatusOK
	if v.Base != hash {
		v.Theirs = r.theirs(req, v.Base, hash, now)
	}
	v.Changes = diffFiles(now, v.Files)

	switch do := form.Get("do"); do {
	case "check", "impact":
		var set *rules.Set
		var c router.RulesCheck
		if c, set, err = r.drafts.Check(ctx, v.Files); err != nil {
			return 0, v, err
		}
		v.Check = &c
		if do == "check" {
			return status, v, nil
		}
		if set == nil {
			v.NoDiff = "The draft has errors, so it decides nothing yet."
			if ctx.Err() != nil {
				v.NoDiff = "Checking the draft took all its time, so no job was decided by it."
			}
			return status, v, nil
		}
		status, err = r.impact(ctx, w, req, set, &v)
		return status, v, err
	case "apply":
		return r.apply(ctx, req, v)
	default:
		return 0, v, problem.New(http.StatusBadRequest, "do %.20q: want check, impact or apply", do)
	}
}

// impact finds the impact of a draft. If that takes a while, it answers with the page up to
// there, then each second with how many jobs were looked at, and leaves the rest in v. As others
// wait for their turn, a client that does not read is waited for as long as ctx lasts.
func (r *rulesPages) impact(ctx context.Context, w http.ResponseWriter, req *http.Request, set *rules.Set, v *rulesView) (status int, err error) {
	conn := http.NewResponseController(w)
	var rest []byte
	late, sent := false, false
	impact, err := r.drafts.Impact(ctx, set, v.Days, func(jobs int) {
		if !late {
			looking := *v
			looking.Looking = "<!-- so many -->"
			late = true
			until, _ := ctx.Deadline()
			_ = conn.SetWriteDeadline(until)
			rest, sent = r.console.frame.begin(w, req, r.main(), looking, string(looking.Looking))
		}
		if sent {
			fmt.Fprintf(w, " <span>%s</span>", router.Thousands(jobs, "\u202f"))
			_ = conn.Flush() // without it the browser waits a little longer
		}
	})
	if !late {
		v.Impact = &impact
		return http.StatusOK, err
	}
	if v.Impact = &impact; err != nil {
		v.Impact, v.NoDiff = nil, r.console.problemOf(req, err).Detail
	}
	b := bytes.NewBufferString("</p>")
	if err := templates()["rules"].ExecuteTemplate(b, "impact", v); err != nil {
		r.console.config.Logger.Error("a page could not be made", "path", req.URL.Path, "err", err)
	}
	if sent {
		v.rest = append(b.Bytes(), rest...)
	}
	return begun, nil
}

// apply puts a draft that was read from a form in force.
func (r *rulesPages) apply(ctx context.Context, req *http.Request, v rulesView) (int, rulesView, error) {
	if err := r.mayApply(req); err != nil {
		return 0, v, err
	}
	name := auth.Who(req.Context()).Name
	err := r.rulebook.Apply(ctx, router.RulesEdit{Base: v.Base, Files: v.Files, Who: name, Note: v.Note, Origin: "applied"})
	result := auth.ResultOK
	if err != nil {
		result = err.Error()
	}
	what := "rules"
	if v.Over {
		what += ", over a newer version"
	}
	r.console.guard.Record(req, "apply", strings.TrimSuffix(what+": "+v.Note, ": "), result)
	var refused *router.RulesRefusedError
	switch {
	case err == nil:
		return http.StatusSeeOther, v, nil
	case errors.Is(err, router.ErrRulesChanged):
		now, hash, err := r.rulebook.Files(req.Context())
		if err != nil {
			return 0, v, err
		}
		v.Theirs, v.Changes = r.theirs(req, v.Base, hash, now), diffFiles(now, v.Files)
		return http.StatusConflict, v, nil
	case errors.As(err, &refused):
		v.Refused, v.Check = true, &router.RulesCheck{Findings: refused.Faults}
		return http.StatusUnprocessableEntity, v, nil
	}
	return 0, v, err
}

// mayApply says why a request may not change the rules; nil: it may.
func (r *rulesPages) mayApply(req *http.Request) error {
	if err := auth.Who(req.Context()).Need(auth.Editor); err != nil {
		return err
	}
	if !r.console.config.AllowEdit {
		return problem.New(http.StatusForbidden, "the rules cannot be changed here: the server runs without --allow-edit")
	}
	return nil
}

// theirs describes how the files changed from base to now, as far as the versions can be read.
func (r *rulesPages) theirs(req *http.Request, base, hash string, now []rules.File) *theirs {
	t := &theirs{Hash: hash}
	versions, _ := r.rulebook.RulesVersions(req.Context()) // without them there is less to show
	for _, v := range versions {
		if v.Hash == hash && t.Newest == nil {
			t.Newest = &v
		}
		if v.Hash == base && t.Changes == nil {
			if old, err := r.rulebook.RulesVersion(req.Context(), v.ID); err == nil {
				t.Changes = diffFiles(old.Files, now)
			}
		}
	}
	return t
}

func fileNamed(files []rules.File, name string) *rules.File {
	for i := range files {
		if files[i].Name == name {
			return &files[i]
		}
	}
	return nil
}

// download answers with one file as it is.
func (r *rulesPages) download(w http.ResponseWriter, req *http.Request) {
	files, _, err := r.rulebook.Files(req.Context())
	if err != nil {
		r.console.fail(w, req, err)
		return
	}
	f := fileNamed(files, mux.Vars(req)["name"])
	if f == nil {
		r.console.fail(w, req, problem.New(http.StatusNotFound, "the rules have no such file"))
		return
	}
	w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
	w.Header().Set("Content-Disposition", "attachment; filename*=UTF-8''"+url.PathEscape(f.Name))
	_, _ = w.Write(f.Source) // a client that went away needs no answer
}

// versionView is one version of the past.
type versionView struct {
	router.KeptRules
	Base     string     // the hash of the files as they are
	Back     []fileDiff // what putting it back changes
	Current  bool       // it is what the files are
	MayApply bool
}

// Title returns the title of a version's page.
func (v versionView) Title() string { return fmt.Sprintf("Version %d of the rules", v.ID) }

func (r *rulesPages) version(req *http.Request) (versionView, error) {
	id, err := strconv.ParseInt(mux.Vars(req)["id"], 10, 64)
	if err != nil {
		return versionView{}, problem.New(http.StatusNotFound, "there is no such version of the rules")
	}
	kept, err := r.rulebook.RulesVersion(req.Context(), id)
	return versionView{KeptRules: kept, MayApply: r.mayApply(req) == nil}, err
}

func (r *rulesPages) versionPage(req *http.Request) (any, error) {
	v, err := r.version(req)
	if err != nil {
		return nil, err
	}
	files, hash, err := r.rulebook.Files(req.Context())
	if err != nil {
		files = nil // the version is still worth showing
	}
	v.Base, v.Back, v.Current = hash, diffFiles(files, v.Files), hash == v.Hash
	return v, nil
}

// putBack makes the rules what a version of the past was.
func (r *rulesPages) putBack(req *http.Request) (string, error) {
	if err := r.mayApply(req); err != nil {
		return "", err
	}
	v, err := r.version(req)
	if err != nil {
		return "", err
	}
	ctx, done, err := r.drafts.Start(req.Context())
	if err != nil {
		return "", err
	}
	defer done()
	err = r.rulebook.Apply(ctx, router.RulesEdit{
		Base: req.PostForm.Get("base"), Files: v.Files, Who: auth.Who(req.Context()).Name, Note: fmt.Sprintf("version %d", v.ID), Origin: "put back",
	})
	var refused *router.RulesRefusedError
	switch {
	case errors.Is(err, router.ErrRulesChanged):
		return "", problem.New(http.StatusConflict, "the rules were changed meanwhile: check version %d again before putting it back", v.ID)
	case errors.As(err, &refused):
		return "", problem.New(http.StatusUnprocessableEntity, "version %d cannot be in force now: %v", v.ID, refused)
	}
	return "/rules?done=back", err
}

// A fileDiff is how a file changes, line by line.
type fileDiff struct {
	Name  string
	Lines []diffLine
	Cut   bool // there is more
}

// A diffLine is one line: Kind is "add", "del", "same" or "at", which says where the next are.
type diffLine struct{ Kind, Text string }

// diffFiles compares the files that differ.
func diffFiles(was, is []rules.File) (changed []fileDiff) {
	names := make([]string, 0, len(is))
	for _, f := range slices.Concat(was, is) {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	for _, name := range names {
		var before, after []byte
		if f := fileNamed(was, name); f != nil {
			before = f.Source
		}
		if f := fileNamed(is, name); f != nil {
			after = f.Source
		}
		if bytes.Equal(before, after) {
			continue
		}
		d := fileDiff{Name: name}
		n := 0
		for line := range strings.Lines(string(diff.Diff("a", before, "b", after))) {
			if n++; n <= 3 { // the names
				continue
			}
			if len(d.Lines) == shownDiffLines {
				d.Cut = true
				break
			}
			line = strings.TrimRight(line, "\r\n")
			kind := map[byte]string{'+': "add", '-': "del", '@': "at"}[append([]byte(line), ' ')[0]]
			if kind == "" {
				kind = "same"
			}
			d.Lines = append(d.Lines, diffLine{kind, router.Shorten(line, shownDiffLine)})
		}
		changed = append(changed, d)
	}
	return changed
}
