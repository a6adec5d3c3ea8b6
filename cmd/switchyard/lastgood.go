package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"switchyard/jobspecs"
	"switchyard/router"
	"switchyard/router/nomad"
	"switchyard/rules"
)

// goodMark is the name under which the database has the last good rules.
const goodMark = "last good rules"

// marks is the part of the store that remembers them.
type marks interface {
	Mark(ctx context.Context, name string) (string, error)
	SetMark(ctx context.Context, name, value string) error
}

// goodRules are rules that came into force, with all that it takes to start
// with them again. Its JSON form is in databases.
type goodRules struct {
	At       time.Time
	Source   string // last element of --rules. Only it: a task on Nomad has new directories each time
	Files    []rules.File
	Jobspecs []jobspecs.Jobspec // the operator's own
}

// name returns what a source's good rules are known by.
func (s source) name() string {
	if abs, err := filepath.Abs(s.rules); err == nil {
		return filepath.Base(abs)
	}
	return filepath.Base(s.rules)
}

// rememberGood records rules that came into force. The server works all the
// same when it cannot.
func (r *reloader) rememberGood(ctx context.Context, c content) {
	if r.marks == nil {
		return
	}
	text, err := json.Marshal(goodRules{time.Now(), r.name(), named(slices.Concat(c.files, c.tests)), c.specs.Own()})
	if err == nil {
		err = r.marks.SetMark(ctx, goodMark, string(text))
	}
	if err != nil {
		r.log.Error("cannot remember the rules in force; a start with bad ones would fall back on older ones", "hash", c.hash, "err", err)
	}
}

// lastGood returns the last good rules of this source, or why there are none.
func (r *reloader) lastGood(ctx context.Context) (content, *rules.Set, error) {
	var none content
	if r.marks == nil {
		return none, nil, errors.New("there is no database with earlier rules")
	}
	text, err := r.marks.Mark(ctx, goodMark)
	switch {
	case err != nil:
		return none, nil, err
	case text == "":
		return none, nil, errors.New("the database has no earlier good rules to start with")
	}
	var good goodRules
	if err = json.Unmarshal([]byte(text), &good); err == nil && len(good.Files) == 0 {
		err = errors.New("there are no files")
	}
	if err != nil {
		return none, nil, fmt.Errorf("read the last good rules in the database: %w", err)
	}
	if good.Source != r.name() {
		return none, nil, fmt.Errorf("the last good rules in the database are those of %s, not of %s, so they are not used", good.Source, r.name())
	}
	specs, err := jobspecs.With(good.Jobspecs)
	if err != nil {
		return none, nil, err
	}
	c := r.content(slices.DeleteFunc(slices.Clone(good.Files), func(f rules.File) bool { return isTests(f.Name) }),
		slices.DeleteFunc(slices.Clone(good.Files), func(f rules.File) bool { return !isTests(f.Name) }), specs)
	set, faults, err := c.load(ctx)
	if err == nil && len(faults) > 0 {
		err = faults
	}
	if err != nil {
		return none, nil, fmt.Errorf("the last good rules in the database, of %s, are not good for this version of Switchyard: %w", good.At.UTC().Format(time.RFC3339), err)
	}
	return c, set, nil
}

// first loads what the server starts with, and has r.nomad use its jobspecs: the
// source, or, when that is bad, the last good rules; r.say must be called then,
// once r.app is there. When there are none, faults are printed and the error is
// errNo. Jobspecs that Nomad refuses are no reason not to start.
func (r *reloader) first(ctx context.Context, stderr io.Writer) (content, *rules.Set, error) {
	var set *rules.Set
	refused := router.RefusedRules{Origin: started}
	c, err := r.read()
	key := c.hash
	if err == nil {
		refused.Hash = c.hash
		r.record(ctx, c, router.KeptRules{Origin: started})
		set, refused.Diagnostics, err = r.judge(ctx, c)
	} else {
		key = err.Error()
		refused.Diagnostics, err = faultsOf(err)
	}
	bad := err != nil || len(refused.Diagnostics) > 0
	if bad {
		last, lastSet, none := r.lastGood(ctx)
		switch {
		case none == nil && last.hash != c.hash:
			r.refused = key
			r.say = func() { r.refuse(refused, err) }
			c, set = last, lastSet
		case err != nil:
			return c, nil, fmt.Errorf("%w; %w", err, none)
		case refused.Diagnostics[0].Code != nomad.JobspecRefused:
			writeFindings(stderr, slices.Concat(c.files, c.tests), refused.Diagnostics)
			fmt.Fprintf(stderr, "%s: %s; %v\n", r.rules, count(len(refused.Diagnostics), "fault"), none)
			return c, nil, errNo
		default:
			for _, d := range refused.Diagnostics {
				r.log.Error("nomad did not accept a jobspec", logged(d)...)
			}
		}
	}
	r.current = c.hash
	r.nomad.Use(c.specs)
	if !bad {
		r.rememberGood(ctx, c)
	}
	return c, set, nil
}
