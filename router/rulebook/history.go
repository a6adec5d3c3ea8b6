package rulebook

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode/utf8"

	"switchyard/router"
	"switchyard/rules"
)

// maxLine bounds a line of a history. The largest job that a server records
// takes a third of it.
const maxLine = 1 << 20

// Records yields the recorded jobs that in has, as History does.
func Records(ctx context.Context, name string, in io.Reader) iter.Seq2[rules.Record, error] {
	return func(yield func(rules.Record, error) bool) {
		for j, err := range History(ctx, name, in) {
			if !yield(j.Record, err) {
				return
			}
		}
	}
}

// History yields the recorded jobs that in has, one in JSON on each line, until one is
// faulty or ctx ends. The errors call in by name.
func History(ctx context.Context, name string, in io.Reader) iter.Seq2[router.PastJob, error] {
	return func(yield func(router.PastJob, error) bool) {
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, maxLine)
		n := 0
		for lines.Scan() {
			n++
			line := lines.Bytes()
			if n == 1 {
				line = bytes.TrimPrefix(line, []byte("\ufeff")) // editors on Windows write it
			}
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			j, err := readJob(line)
			if err != nil {
				err = fmt.Errorf("%s:%d: %w", name, n, err)
			} else if err = ctx.Err(); err != nil {
				err = fmt.Errorf("read the history: %w", err)
			}
			if !yield(j, err) || err != nil {
				return
			}
		}
		switch err := lines.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield(router.PastJob{}, fmt.Errorf("%s:%d: the line is longer than 1 MiB: want one job per line", name, n+1))
		case err != nil:
			yield(router.PastJob{}, fmt.Errorf("read the history: %w", err))
		}
	}
}

// readJob reads one job. It ignores unknown fields.
func readJob(line []byte) (router.PastJob, error) {
	var r router.PastJob
	if !utf8.Valid(line) {
		return r, errors.New("the line is not UTF-8")
	}
	var wrongType *json.UnmarshalTypeError
	switch err := json.Unmarshal(line, &r); {
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return r, fmt.Errorf("want a JSON object, not %s", wrongType.Value)
	case errors.As(err, &wrongType):
		return r, fmt.Errorf("%s cannot be a JSON %s", strings.TrimPrefix(strings.TrimPrefix(wrongType.Field, "Record."), "Facts."), router.Printable(wrongType.Value))
	case err != nil:
		return r, fmt.Errorf("the line is not one JSON object: %w", err)
	case r.Labels == nil:
		return r, errors.New(`labels are missing: want a job such as {"labels": ["self-hosted"], "repo": {"full_name": "acme/web"}}`)
	}
	// A repository may be named by its owner and name, or by its full name.
	switch repo := &r.Repo; {
	case repo.Owner == "" && repo.Name == "":
		repo.Owner, repo.Name, _ = strings.Cut(repo.FullName, "/")
	case repo.FullName == "":
		repo.FullName = repo.Owner + "/" + repo.Name
	}
	return r, nil
}
