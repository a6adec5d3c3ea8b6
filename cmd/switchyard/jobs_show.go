package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/web/api"
	"switchyard/router/web/problem"
	"switchyard/rules"
)

func jobsShowCommand() *cobra.Command {
	var o operator
	cmd := &cobra.Command{
		Use:   "show JOB",
		Short: "Show everything about a job, and why it waits",
		Long: `Show prints a job, given by its ID: its state and the reason for it, its place among
those that wait under its limit and when it will probably start, why Nomad has no
node for its runner, how the rules decided it, its runners, and its whole
timeline with the source of each step. With --db it reads a database file instead,
which a server may be using.

Exit codes: 0, shown; 1, there is no such job; 2, could not tell.`,
		Example: "  switchyard jobs show 48301234567 --watch",
		Args:    exactlyOne("JOB", "switchyard jobs show 48301234567"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := jobNumber(args[0])
			if err != nil {
				return err
			}
			return show(cmd, &o, func(ctx context.Context) (api.JobDetail, error) {
				d, err := get(ctx, &o, fmt.Sprintf("/jobs/%d", id), nil, func(b api.Database) (api.JobDetail, error) {
					d, _, err := api.ShowJob(ctx, b, id, time.Now())
					if errors.Is(err, router.ErrNotFound) {
						err = &problem.Details{Status: http.StatusNotFound, Detail: fmt.Sprintf("%s has no job %d", o.db, id)}
					}
					return d, err
				})
				return d, answered(fmt.Sprintf("job %d", id), err)
			}, writeJob)
		},
	}
	fl := cmd.Flags()
	o.showFlags(fl, "show it again")
	return cmd
}

func jobNumber(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id < 1 {
		return 0, fmt.Errorf("job %q: want GitHub's ID of a job, the number at the end of its page's address", s)
	}
	return id, nil
}

// answered adds the exit code to an error of a question about what: a refusal of
// the server is the answer no.
func answered(what string, err error) error {
	var p *problem.Details
	switch {
	case !errors.As(err, &p):
		return err
	case p.Status == http.StatusNotFound:
		return &exitError{exitNo, fmt.Errorf("%s: %w", what, err)}
	case p.Status == http.StatusConflict:
		return &exitError{exitNo, err}
	case p.Status == http.StatusServiceUnavailable:
		return fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// writeJob prints a job for people.
func writeJob(out io.Writer, d api.JobDetail, _ int, now time.Time) error {
	j := d.Job
	t := &table{}
	line := func(what string, values ...string) {
		if s := strings.Join(values, ""); s != "" {
			t.row(what, s)
		}
	}
	of := ""
	if j.GitHubID != j.ID {
		of = fmt.Sprintf(", %d on %s", j.GitHubID, j.Repo.Host)
	}
	line("job", strconv.FormatInt(j.ID, 10), of)
	line("name", nonEmpty(" · ", j.Repo.FullName, j.Workflow, j.Name))
	line("run", fmt.Sprintf("%d, attempt %d", j.RunID, j.Attempt), prefixed(", branch ", j.Branch), prefixed(", caused by ", j.Sender))
	line("page", j.URL)
	line("labels", rules.ShowLabels(j.Labels))
	line("state", string(j.State), " for ", ago(now, since(d)))
	line("why", j.Reason)
	if d.Queue != nil {
		line("queue", d.Queue.Standing())
		line("starts", d.Queue.Starts(now))
	}
	if j.DueAt != nil {
		line("next", "decided ", due(now, *j.DueAt))
	}
	line("runner", j.RunnerName)
	for _, r := range d.Runners {
		if r.Try == j.Try && r.Warm() {
			line("warm", "its runner was there before it, as ", r.NomadJob)
		}
	}
	if j.Fallback > 0 {
		line("fallback", strconv.Itoa(j.Fallback), " of its rule is in force")
	}
	if err := t.write(out); err != nil {
		return err
	}
	for _, r := range d.Runners {
		if r.Try == j.Try && r.Unplaced != nil {
			if err := writeUnplaced(out, r.Unplaced, now); err != nil {
				return err
			}
		}
	}
	if err := writeDecisions(out, d); err != nil {
		return err
	}
	if len(d.Runners) > 0 {
		fmt.Fprintln(out, "\nrunners")
		if err := writeRunners(out, d.Runners, 0, now); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "\ntimeline")
	return writeTimeline(out, d.Timeline)
}

// since returns when the job entered its state.
func since(d api.JobDetail) time.Time {
	at := d.Job.ReceivedAt
	last := ""
	for _, e := range d.Timeline {
		if e.Runner == "" && e.State != last {
			at, last = e.At, e.State
		}
	}
	return at
}

func due(now, at time.Time) string {
	if !at.After(now) {
		return "now"
	}
	return "in " + short(at.Sub(now))
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func nonEmpty(sep string, parts ...string) string {
	var some []string
	for _, p := range parts {
		if p != "" {
			some = append(some, p)
		}
	}
	return strings.Join(some, sep)
}

// writeUnplaced prints why Nomad has no node, as a funnel.
func writeUnplaced(out io.Writer, u *router.Unplaced, now time.Time) error {
	why := "Nomad has no node for it now"
	if u.Never {
		why = "no node of the cluster could run it"
	}
	fmt.Fprintf(out, "\n%s, as of %s ago\n", why, ago(now, u.At))
	t := &table{}
	t.row("  "+strconv.Itoa(u.InPool), "nodes in pool "+u.Pool)
	t.row("  "+strconv.Itoa(u.Evaluated), "evaluated")
	for _, s := range u.Filtered {
		t.row(fmt.Sprintf("  -%d", s.Nodes), "filtered by "+s.What, s.From)
	}
	for _, s := range u.Exhausted {
		t.row(fmt.Sprintf("  -%d", s.Nodes), "do not have enough "+s.What, s.From)
	}
	return t.write(out)
}

// writeDecisions prints the job's decision. If the rules in force would decide the
// same, it adds their trace, and otherwise their decision.
func writeDecisions(out io.Writer, d api.JobDetail) error {
	made, same := d.Made()
	title := "by the rules in force"
	if made != nil {
		fmt.Fprint(out, "\ndecision\n")
		if err := writeDecision(out, *made); err != nil {
			return err
		}
		title += " now"
	}
	if d.Explanation == nil || same {
		return nil
	}
	fmt.Fprintf(out, "\n%s\n", title)
	return writeDecision(out, *d.Explanation)
}

func writeTimeline(out io.Writer, events []api.Event) error {
	t := &table{}
	t.row("  AT (UTC)", "AFTER", "SOURCE", "WHOSE", "STATE", "WHAT")
	var before time.Time
	for i, e := range events {
		after := ""
		if i > 0 {
			after = "+" + short(e.At.Sub(before))
		}
		before = e.At
		t.row("  "+e.At.UTC().Format("2006-01-02 15:04:05.000"), after, string(e.Source), cmp.Or(e.Runner, "job"), e.State, e.What)
	}
	return t.write(out)
}
