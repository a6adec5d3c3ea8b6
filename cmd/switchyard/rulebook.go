package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"switchyard/router"
	"switchyard/router/rulebook"
	"switchyard/router/store"
	"switchyard/router/web/api"
	"switchyard/rules"
)

// editedRules joins the rules files and their recorded versions for the console.
type editedRules struct {
	*rulebook.Book
	*store.Store
}

var _ api.Rulebook = editedRules{}

// Recent implements api.Rulebook.
func (e editedRules) Recent(ctx context.Context, since time.Time, within router.Scope) iter.Seq2[rules.Record, error] {
	return func(yield func(rules.Record, error) bool) {
		for j, err := range e.Store.Recent(ctx, since, within) {
			r := j.Past().Record
			r.ID = j.Job.ID // the console and the API use our ID, not GitHub's
			if !yield(r, err) {
				return
			}
		}
	}
}

// startRules loads the rules that a server starts with. If they have faults, it
// prints them and returns errNo.
func startRules(ctx context.Context, book *rulebook.Book, stderr io.Writer) (rulebook.Started, error) {
	started, err := book.Start(ctx)
	if faults, ok := errors.AsType[*rulebook.FaultsError](err); ok {
		writeFindings(stderr, faults.Files, faults.Faults)
		fmt.Fprintln(stderr, faults)
		err = errNo
	}
	return started, err
}
