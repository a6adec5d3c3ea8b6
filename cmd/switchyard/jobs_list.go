package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"switchyard/router/web/api"

	"github.com/spf13/cobra"
)

func jobsListCommand() *cobra.Command {
	var o operator
	var states, causes []string
	var host, owner, repo, rule, label, since, until string
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the jobs, newest first",
		Long: `List shows the jobs of a running server, newest first, with the state of each
and the reason for it; of several GitHubs, those of one after the other. With --db
it reads a database instead, which a server may be using.

Exit codes: 0, listed; 2, failed.`,
		Example: "  switchyard jobs list --state queued,retrying,dispatched --repo acme/web",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			params := url.Values{}
			for name, value := range map[string]string{"host": host, "owner": owner, "repo": repo, "rule": rule, "label": label} {
				if value != "" {
					params.Set(name, value)
				}
			}
			for name, values := range map[string][]string{"state": states, "cause": causes} {
				if len(values) > 0 {
					params[name] = values
				}
			}
			for name, value := range map[string]string{"since": since, "until": until} {
				t, err := timeFlag(name, value, now)
				if err != nil {
					return err
				}
				if !t.IsZero() {
					params.Set(name, t.UTC().Format(time.RFC3339Nano))
				}
			}
			return show(cmd, &o, func(ctx context.Context) (api.JobList, error) {
				jobs, next, err := pages(params, limit, func(params url.Values) ([]api.Job, string, error) {
					l, err := get(ctx, &o, "/jobs", params, func(b api.Database) (api.JobList, error) { return api.ListJobs(ctx, b, nil, params) })
					return l.Jobs, l.NextCursor, err
				})
				return api.JobList{Jobs: jobs, NextCursor: next}, err
			}, writeJobs)
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&states, "state", nil, "only in these `states`: held, queued, retrying, dispatched, running, completed, ignored, denied, unroutable")
	fl.StringSliceVar(&causes, "cause", nil, "only with these `causes`, the API's words for why a job waits: limit, nomad, no_node_free, …")
	fl.StringVar(&owner, "owner", "", "only jobs of this organization or user")
	fl.StringVar(&repo, "repo", "", "only jobs of this repository, as `name` or owner/name")
	fl.StringVar(&host, "host", "", "only jobs on the GitHub with this host, such as github.com")
	fl.StringVar(&rule, "rule", "", "only jobs that this rule took or denied")
	fl.StringVar(&label, "label", "", "only jobs that ask for this label")
	fl.StringVar(&since, "since", "", "only jobs received since then: a `time` such as 36h, 30d or 2026-11-01")
	fl.StringVar(&until, "until", "", "only jobs received before then")
	fl.IntVar(&limit, "limit", 50, "show at most this many")
	o.showFlags(fl, "list them again")
	return cmd
}

func writeJobs(out io.Writer, list api.JobList, columns int, now time.Time) error {
	if len(list.Jobs) == 0 {
		_, err := fmt.Fprintln(out, "no jobs")
		return err
	}
	t := table{columns: columns}
	t.row("JOB", "STATE", "AGE", "REPOSITORY", "NAME", "RULE", "WHY")
	for _, j := range list.Jobs {
		t.row(strconv.FormatInt(j.ID, 10), string(j.State), ago(now, j.ReceivedAt), j.Repo.FullName, j.Name, j.Rule, j.Reason)
	}
	return writeMore(out, list.NextCursor, t.write(out))
}
