package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/web/api"
)

func runnersCommand() *cobra.Command {
	return group("runners", "List and stop runners", "  switchyard runners list --state online,busy", runnersListCommand(), runnersStopCommand())
}

func runnersListCommand() *cobra.Command {
	var o operator
	var states []string
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the runners, newest first",
		Long: `List shows the runners that a running server started, newest first, with the
state of each and the reason for it; of several GitHubs, those of one after the
other. With --db it reads a database instead, which a server may be using.

Exit codes: 0, listed; 2, failed.`,
		Example: "  switchyard runners list --state dispatched,claimed,online,busy",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			params := url.Values{}
			if len(states) > 0 {
				params["state"] = states
			}
			return show(cmd, &o, func(ctx context.Context) (api.RunnerList, error) {
				runners, next, err := pages(params, limit, func(params url.Values) ([]api.Runner, string, error) {
					l, err := get(ctx, &o, "/runners", params, func(b api.Database) (api.RunnerList, error) { return api.ListRunners(ctx, b, nil, params) })
					return l.Runners, l.NextCursor, err
				})
				return api.RunnerList{Runners: runners, NextCursor: next}, err
			}, func(out io.Writer, l api.RunnerList, columns int, now time.Time) error {
				return writeMore(out, l.NextCursor, writeRunners(out, l.Runners, columns, now))
			})
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&states, "state", nil, "only in these `states`: dispatched, claimed, online, busy, finished, lost, stopped")
	fl.IntVar(&limit, "limit", 50, "show at most this many")
	o.showFlags(fl, "list them again")
	return cmd
}

func writeRunners(out io.Writer, runners []api.Runner, columns int, now time.Time) error {
	if len(runners) == 0 {
		_, err := fmt.Fprintln(out, "no runners")
		return err
	}
	t := table{columns: columns}
	t.row("RUNNER", "STATE", "FOR", "JOB", "NODE", "NOMAD JOB", "WHY")
	for _, r := range runners {
		t.row(r.ID, r.Shown(), ago(now, r.StateAt), strconv.FormatInt(r.JobID, 10), r.Node, r.NomadJob, r.Reason)
	}
	return t.write(out)
}

func runnersStopCommand() *cobra.Command {
	var o operator
	var force bool
	cmd := &cobra.Command{
		Use:   "stop RUNNER…",
		Short: "Stop runners",
		Long: `Stop has the running server stop runners, each given by its ID, gha-JOB-TRY. It
removes the runner from GitHub, so that it gets no more jobs, and then stops its
Nomad job. A job that waits for the runner gets another one.

Exit codes: 0, done; 1, it has a job, or has ended; 2, could not tell.`,
		Example: "  switchyard runners stop gha-48301234567-1",
		Args:    someArgs("RUNNER", "gha-48301234567-1"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			params := url.Values{}
			if force {
				params.Set("force", "true")
			}
			return each(args, func(id string) error {
				var r api.Runner
				if err := o.ask(cmd.Context(), http.MethodPost, api.Prefix+"/runners/"+url.PathEscape(id)+"/stop", params, nil, &r); err != nil {
					return answered("runner "+router.Printable(id), err)
				}
				return o.said(cmd.OutOrStdout(), r, "runner %s is %s: %s", router.Printable(r.ID), r.State, router.Printable(r.Reason))
			})
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&force, "force", false, "also stop a runner that has a job, which then fails")
	o.flags(fl)
	return cmd
}
