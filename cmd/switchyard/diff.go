package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/rulebook"
	"switchyard/router/store"
	"switchyard/rules"
)

type diffFlags struct{ history, format, specDir string }

func diffCommand() *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff OLD NEW --history FILE",
		Short: "Show which recorded jobs a change of the rules affects",
		Long: `Diff decides recorded jobs by two rules files and groups those whose outcome,
rule, jobspec or any other part of the placement changes.

The history is a file of switchyard jobs export, a server's database (even while
it is in use), or JSON lines of your own, each with at least
{"labels": ["self-hosted"], "repo": {"full_name": "acme/web", "private": true}}

Exit codes: 0, no job changes; 1, some do; 2, could not tell.`,
		Example: "  switchyard diff rules.yaml new.yaml --history switchyard.db",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("want two rules files, OLD and NEW, got %d arguments; for example: switchyard diff rules.yaml new.yaml --history switchyard.db", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.diff(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), cmd.InOrStdin(), args[0], args[1])
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.history, "history", "", "`file` of recorded jobs, or a database (required); - for JSON lines on standard input")
	fl.StringVar(&f.format, "format", "text", "text, json, or github: annotations for a pull request's check")
	jobspecsFlag(fl, &f.specDir, "`directory` of your own jobspecs that NEW may use, besides the built-in ones")
	return cmd
}

// diff prints how the change from OLD to NEW affects the recorded jobs.
func (f *diffFlags) diff(ctx context.Context, stdout, stderr io.Writer, stdin io.Reader, oldPath, newPath string) error {
	if err := checkFormat(f.format, "text", "json", "github"); err != nil {
		return err
	}
	if f.history == "" {
		return errors.New("--history FILE is missing: an export of switchyard jobs export, a database, or - for standard input")
	}
	before, err := loadRulesFor(ctx, stderr, oldPath, nil) // its jobspecs may be gone by now
	var after *rules.Set
	if err == nil {
		after, _, err = loadRules(ctx, stderr, newPath, f.specDir)
	}
	if errors.Is(err, errNo) {
		return &exitError{code: exitUnknown} // the faults are printed; the jobs cannot be decided
	}
	if err != nil {
		return err
	}
	c, err := rules.Compare(ctx, before, after, readHistory(ctx, f.history, stdin))
	switch {
	case err != nil:
		return err
	case c.Jobs == 0:
		if f.history == "-" {
			f.history = stdinName
		}
		return fmt.Errorf("%s has no jobs: there is nothing to compare", f.history)
	}
	switch f.format {
	case "json":
		err = writeJSON(stdout, c)
	case "github":
		err = writeAnnotations(stdout, after, newPath, c)
	default:
		err = writeComparison(stdout, c)
	}
	if err == nil && c.Changed > 0 {
		return errNo
	}
	return err
}

const stdinName = "standard input"

// sqliteMagic begins every SQLite file: https://www.sqlite.org/fileformat.html.
const sqliteMagic = "SQLite format 3\x00"

// readHistory yields the recorded jobs of a file, of a database in PostgreSQL, or of stdin when
// name is "-", as the rules see them.
func readHistory(ctx context.Context, name string, stdin io.Reader) iter.Seq2[rules.Record, error] {
	return func(yield func(rules.Record, error) bool) {
		for j, err := range readPast(ctx, name, stdin) {
			if !yield(j.Record, err) {
				return
			}
		}
	}
}

// readPast yields the same jobs with when they ran.
func readPast(ctx context.Context, name string, stdin io.Reader) iter.Seq2[router.PastJob, error] {
	return func(yield func(router.PastJob, error) bool) {
		if name == "-" {
			rulebook.History(ctx, stdinName, stdin)(yield)
			return
		}
		if isDatabase(name) {
			readDatabase(ctx, name, yield)
			return
		}
		f, err := os.Open(name)
		if err != nil {
			yield(router.PastJob{}, fmt.Errorf("read the history: %w", err))
			return
		}
		defer f.Close()
		rulebook.History(ctx, name, f)(yield)
	}
}

// isDatabase reports whether a history is a database, and no file of jobs.
func isDatabase(name string) bool {
	if store.IsPostgres(name) {
		return true
	}
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() { // what a pipe holds can be read once
		return false
	}
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, len(sqliteMagic))
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == sqliteMagic
}

func readDatabase(ctx context.Context, name string, yield func(router.PastJob, error) bool) {
	jobs, err := store.OpenReadOnly(ctx, name)
	if err != nil {
		yield(router.PastJob{}, err)
		return
	}
	defer jobs.Close()
	for j, err := range jobs.Jobs(ctx, time.Time{}) {
		if !yield(j.Past(), err) {
			return
		}
	}
}

// writeComparison prints a comparison for people: a sentence, then the groups.
func writeComparison(w io.Writer, c rules.Comparison) error {
	const most = 50 // groups
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s.\n", sentence(c))
	for _, g := range c.Groups[:min(len(c.Groups), most)] {
		fmt.Fprintf(out, "\n%s:\n", title(g))
		tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, ch := range g.Changes {
			fmt.Fprintf(tw, "  %s\t%s\n", router.Printable(ch.Part), change(ch))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		for i, e := range g.Examples {
			lead := "  such as "
			if i > 0 {
				lead = "          "
			}
			fmt.Fprintf(out, "%s%s\n", lead, example(e))
		}
		if why := reason(g); why != "" {
			fmt.Fprintf(out, "  the first job's reason: %s\n", why)
		}
	}
	if rest := c.Groups[min(len(c.Groups), most):]; len(rest) > 0 {
		n := 0
		for _, g := range rest {
			n += g.Count
		}
		fmt.Fprintf(out, "\nAnd %s in %s; --format json lists them.\n", router.Count(n, "job"), router.Count(len(rest), "group"))
	}
	if c.Ungrouped > 0 {
		fmt.Fprintf(out, "\nAnd %s that change in other ways.\n", router.Count(c.Ungrouped, "job"))
	}
	return out.Flush()
}

// sentence returns the answer, without a full stop.
func sentence(c rules.Comparison) string {
	s := "None"
	if c.Changed > 0 {
		s = thousands(c.Changed)
	}
	s += " of " + things(c.Jobs, "recorded job") + " change"
	if c.Changed < 2 {
		s += "s"
	}
	if c.Undecided > 0 {
		s += "; for " + thousands(c.Undecided) + " the history lacks what a rule asks about the run"
	}
	return s
}

func title(g rules.Group) string {
	s := things(g.Count, "job")
	if g.Rule != "" {
		s += " of rule " + router.Printable(g.Rule)
	}
	return s
}

// change formats the old and the new value.
func change(c rules.Change) string {
	switch {
	case c.Old == "":
		return "+ " + shortened(c.New)
	case c.New == "":
		return "- " + shortened(c.Old)
	}
	return shortened(c.Old) + " → " + shortened(c.New)
}

func example(e rules.ChangedJob) string {
	s := shortened(e.Repo)
	if e.Job != "" {
		s += " · " + shortened(e.Job)
	}
	if e.ID != 0 {
		s += fmt.Sprintf(" (job %d)", e.ID)
	}
	return s + ": " + shortened(rules.ShowLabels(e.Labels))
}

// reason returns why the first of a group's jobs is not routed now; "" if it is.
func reason(g rules.Group) string {
	for _, c := range g.Changes {
		if c.Part == "outcome" && c.New != string(rules.Routed) && len(g.Examples) > 0 {
			return shortened(g.Examples[0].Reason)
		}
	}
	return ""
}

// shortened makes a stranger's text fit one line of a terminal.
func shortened(s string) string { return router.Printable(router.Shorten(s, 200)) }

// thousands formats 1204 as 1,204.
func thousands(n int) string { return router.Thousands(n, ",") }

// things counts as router.Count does, with thousands.
func things(n int, what string) string {
	_, words, _ := strings.Cut(router.Count(n, what), " ")
	return thousands(n) + " " + words
}

// writeAnnotations prints workflow commands: a notice with the answer, and for
// each of the largest groups a warning at its rule in NEW.
func writeAnnotations(w io.Writer, after *rules.Set, newPath string, c rules.Comparison) error {
	const most = 10 // warnings that GitHub shows of one step
	err := annotate(w, "notice", newPath, 1, 1, "switchyard diff", sentence(c))
	for i, g := range c.Groups {
		if i == most-1 && len(c.Groups) > most {
			n := c.Ungrouped
			for _, g := range c.Groups[i:] {
				n += g.Count
			}
			return errors.Join(err, annotate(w, "warning", newPath, 1, 1, "And "+router.Count(n, "job"), "These change in other ways; switchyard diff without --format github shows more."))
		}
		var lines []string
		for _, ch := range g.Changes {
			lines = append(lines, router.Printable(ch.Part)+": "+change(ch))
		}
		if why := reason(g); why != "" {
			lines = append(lines, "the first job's reason: "+why)
		}
		for _, e := range g.Examples {
			lines = append(lines, "such as "+example(e))
		}
		at := after.AtRule(g.Rule, "")
		if at.File == "" {
			at.File, at.Line, at.Column = newPath, 1, 1
		}
		verb := " change"
		if g.Count == 1 {
			verb = " changes"
		}
		err = errors.Join(err, annotate(w, "warning", at.File, at.Line, at.Column, title(g)+verb, strings.Join(lines, "\n")))
	}
	return err
}
