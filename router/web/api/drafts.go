package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"switchyard/router"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

// A Rulebook has the rules files, for people to read, check and change. A
// file is named without its directory. Its input is untrusted, but bounded.
type Rulebook interface {
	// Files returns the files as they are now, in force or not, or what editors made of
	// them if replicas share the database: the rules, then their tests. The hash is of their
	// names and contents.
	Files(ctx context.Context) (files []rules.File, hash string, err error)

	// Check says what it would be to have these files. set is nil when they
	// cannot be loaded.
	Check(ctx context.Context, files []rules.File) (c router.RulesCheck, set *rules.Set, err error)

	// Apply writes the files, or keeps them for all replicas, and puts them in force, both or neither. The error
	// is router.ErrRulesChanged, a *router.RulesRefusedError or a *router.ConflictError when
	// it cannot be done here.
	Apply(ctx context.Context, e router.RulesEdit) error

	// Recent goes through the jobs since then, the highest ID first.
	Recent(ctx context.Context, since time.Time, within router.Scope) iter.Seq2[rules.Record, error]

	// RulesVersions lists what is kept of the past, the newest first and without
	// the files; RulesVersion is one of them, or router.ErrNotFound.
	RulesVersions(ctx context.Context) ([]router.KeptRules, error)
	RulesVersion(ctx context.Context, id int64) (router.KeptRules, error)

	Jobspecs() []string // that rules can name
}

// Drafts are checked and compared for people, within bounds that leave the router its
// memory and processors.
type Drafts struct {
	config Config
	slots  *slots
}

// A Draft is files that may become the rules.
type Draft struct {
	Files []DraftFile `json:"files"`
}

// A DraftFile is one of them. Those that are named *.test.yaml hold tests.
type DraftFile struct {
	Name   string `json:"name"` // without a directory
	Source string `json:"source"`
}

// An Impact is what a draft would have decided of recent jobs, beside what the
// rules in force do.
type Impact struct {
	Days   int       `json:"days"`
	Since  time.Time `json:"since"`
	Capped bool      `json:"capped"` // there were more jobs, or there was no time for more: those with the highest IDs are counted
	rules.Comparison
}

const (
	MaxDraft       = 12 << 20 // bytes of a request with a draft: as a form, it takes up to three times its size
	maxDraftFiles  = 100
	maxDraftSource = 4 << 20 // bytes of all its files
	maxImpactJobs  = 1_000_000
	impactTold     = time.Second // between two numbers of how many jobs were looked at
	MaxImpactDays  = 90
	ImpactDays     = 7   // when nobody says
	maxFindings    = 500 // that are answered
)

// BodyLimit returns how many bytes the body of a request to a path of the API, or of
// the console, may have.
func BodyLimit(path string) int64 {
	switch path {
	case "/rules", Prefix + "/check", Prefix + "/diff":
		return MaxDraft
	}
	return MaxBody
}

// RulesFiles returns the files of the draft, or why it cannot be one.
func (d Draft) RulesFiles() ([]rules.File, error) {
	switch {
	case len(d.Files) == 0:
		return nil, problem.New(http.StatusBadRequest, `files is missing: want such as {"files": [{"name": "rules.yaml", "source": "version: 1\n…"}]}`)
	case len(d.Files) > maxDraftFiles:
		return nil, problem.New(http.StatusBadRequest, "the draft has %d files; the maximum is %d", len(d.Files), maxDraftFiles)
	}
	var files []rules.File
	size := 0
	for _, f := range d.Files {
		if f.Name == "" || f.Name != path.Base(f.Name) || strings.ContainsAny(f.Name, `/\`) || f.Name[0] == '.' || len(f.Name) > 255 || !utf8.ValidString(f.Name) {
			return nil, problem.New(http.StatusBadRequest, "%.100q is not the name of a rules file: want one such as rules.yaml, without a directory", f.Name)
		}
		if slices.ContainsFunc(files, func(other rules.File) bool { return other.Name == f.Name }) {
			return nil, problem.New(http.StatusBadRequest, "the draft has two files %q", f.Name)
		}
		size += len(f.Source)
		files = append(files, rules.File{Name: f.Name, Source: []byte(f.Source)})
	}
	if size > maxDraftSource {
		return nil, problem.New(http.StatusRequestEntityTooLarge, "the draft has %d bytes; the maximum is %d", size, maxDraftSource)
	}
	return files, nil
}

// decode reads a draft, and what else there may be beside it, from a request of the API.
func (d *Drafts) decode(req *http.Request, body any) error {
	if d.config.Rulebook == nil {
		return problem.New(http.StatusNotFound, "this server has no rules files")
	}
	dec := json.NewDecoder(req.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(body); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return TooSlow()
		}
		if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return problem.New(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", large.Limit)
		}
		return problem.New(http.StatusBadRequest, "the body is not a draft: %v", err)
	}
	return nil
}

func (d *Drafts) checkDraft(req *http.Request) (any, error) {
	var draft Draft
	if err := d.decode(req, &draft); err != nil {
		return nil, err
	}
	return d.checked(req.Context(), draft, func(_ context.Context, c router.RulesCheck, _ *rules.Set) (any, error) { return c, nil })
}

func (d *Drafts) diffDraft(req *http.Request) (any, error) {
	var body struct {
		Draft
		Days *int `json:"days"`
	}
	if err := d.decode(req, &body); err != nil {
		return nil, err
	}
	days := ImpactDays
	if body.Days != nil {
		days = *body.Days
	}
	if days < 1 || days > MaxImpactDays {
		return nil, problem.New(http.StatusBadRequest, "days %d: want a number from 1 to %d", days, MaxImpactDays)
	}
	return d.checked(req.Context(), body.Draft, func(ctx context.Context, c router.RulesCheck, set *rules.Set) (any, error) {
		switch {
		case set == nil && ctx.Err() != nil:
			return nil, noTime()
		case set == nil:
			first := "it cannot be loaded"
			if len(c.Findings) > 0 {
				first = c.Findings[0].String()
			}
			return nil, problem.New(http.StatusUnprocessableEntity, "the draft has errors, so it decides nothing: %s", first)
		}
		return d.Impact(ctx, set, days, nil)
	})
}

// checked checks a draft when it is its turn, and returns what then makes of the result.
func (d *Drafts) checked(ctx context.Context, draft Draft, then func(context.Context, router.RulesCheck, *rules.Set) (any, error)) (any, error) {
	files, err := draft.RulesFiles()
	if err != nil {
		return nil, err
	}
	ctx, done, err := d.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	c, set, err := d.Check(ctx, files)
	if err != nil {
		return nil, err
	}
	return then(ctx, c, set)
}

// Check checks a draft. When the time is over, a finding says what was left out.
func (d *Drafts) Check(ctx context.Context, files []rules.File) (router.RulesCheck, *rules.Set, error) {
	c, set, err := d.config.Rulebook.Check(ctx, files)
	if errors.Is(err, context.DeadlineExceeded) {
		c.Findings = append(c.Findings, rules.Diagnostic{
			File: files[0].Name, Line: 1, Column: 1,
			Message: fmt.Sprintf("checking the draft takes more than %v: it was not fully checked, and no test was run", checkTimeout),
		})
		err = nil
	}
	if errors.Is(err, context.Canceled) {
		err = problem.Canceled()
	}
	if c.Findings == nil {
		c.Findings = rules.Diagnostics{}
	}
	c.Findings = c.Findings[:min(len(c.Findings), maxFindings)]
	if c.Tests != nil {
		shorten(c.Tests)
	}
	return c, set, err
}

// shorten leaves of a report what is answered: those tests that failed first.
func shorten(r *rules.TestReport) {
	if len(r.Tests) > maxFindings {
		slices.SortStableFunc(r.Tests, func(a, b rules.TestResult) int { return min(len(b.Failures), 1) - min(len(a.Failures), 1) })
		r.Tests = slices.Clone(r.Tests[:maxFindings])
	}
	left := maxFindings
	for i := range r.Tests {
		t := &r.Tests[i]
		t.Failures = t.Failures[:min(len(t.Failures), max(left, 1))] // a test that failed has one
		left -= len(t.Failures)
	}
}

// Impact compares a draft with the rules in force over the jobs that the caller may see,
// as far as there is time. Each second it calls looked, if that is not nil, with how many
// jobs it has looked at.
func (d *Drafts) Impact(ctx context.Context, set *rules.Set, days int, looked func(jobs int)) (i Impact, err error) {
	i = Impact{Days: days, Since: d.config.Now().AddDate(0, 0, -days).UTC()}
	told := time.Now()
	i.Comparison, err = rules.Compare(ctx, d.config.App.Rules(), set, func(yield func(rules.Record, error) bool) {
		n := 0
		for r, err := range d.config.Rulebook.Recent(ctx, i.Since, auth.Who(ctx).Scope) {
			if looked != nil && time.Since(told) >= impactTold {
				told = time.Now()
				looked(n)
			}
			if n++; n > maxImpactJobs {
				i.Capped = true
				return
			}
			if !yield(r, err) {
				return
			}
		}
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded) && i.Jobs > 0:
		i.Capped, err = true, nil
	case errors.Is(err, context.DeadlineExceeded):
		err = noTime()
	case errors.Is(err, context.Canceled):
		err = problem.Canceled()
	}
	return i, err
}

// noTime returns the error of an impact when the check of its draft has left no time for it.
func noTime() error {
	return problem.Later(http.StatusServiceUnavailable, draftRetry, "checking the draft used up its %v, and no job was decided by it", checkTimeout)
}

// A Completion is what an editor of the rules can offer.
type Completion struct {
	Schema    json.RawMessage `json:"schema"`    // of a rules file: JSON Schema, draft-07
	Variables []string        `json:"variables"` // that conditions see
	Functions []string        `json:"functions"` // that they call
	Jobspecs  []string        `json:"jobspecs"`  // that rules can name
}

func (d *Drafts) completion(*http.Request) (any, error) {
	c := Completion{Schema: rules.Schema(), Jobspecs: []string{}}
	c.Variables, c.Functions = rules.Words()
	if d.config.Rulebook != nil {
		c.Jobspecs = append(c.Jobspecs, d.config.Rulebook.Jobspecs()...)
	}
	return c, nil
}
