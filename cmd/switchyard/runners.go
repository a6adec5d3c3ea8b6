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

	"switchyard/router/web"
)

func runnersCommand() *cobra.Command {
	return group("runners", "See the runners and stop them", "  switchyard runners list --state online,busy", runnersListCommand(), runnersStopCommand())
}

func runnersListCommand() *cobra.Command {
	var o operator
	var states []string
	var limit int
	var watched bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the runners, newest first",
		Long: `List shows the runners that a running server started, newest first, with the
state of each and why it is in it. With --db it reads a database file instead,
which a server may be using.

Exit code 0: listed. 2: could not.`,
		Example: "  switchyard runners list --state dispatched,claimed,online,busy",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if limit < 1 {
				return fmt.Errorf("--limit %d: want at least 1", limit)
			}
			params := url.Values{}
			if len(states) > 0 {
				params["state"] = states
			}
			columns, _ := width(cmd.OutOrStdout())
			show := func(out io.Writer) error {
				list, err := o.listRunners(cmd.Context(), params, limit)
				switch {
				case err != nil:
					return err
				case o.format == "json":
					return writeJSON(out, list)
				case len(list.Runners) == 0:
					_, err := fmt.Fprintln(out, "no runners")
					return err
				}
				if err := writeRunners(out, list.Runners, columns, time.Now()); err != nil || list.NextCursor == "" {
					return err
				}
				_, err = fmt.Fprintln(out, "there are more; see --limit")
				return err
			}
			if watched {
				return watch(cmd.Context(), cmd.OutOrStdout(), show)
			}
			return show(cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringSliceVar(&states, "state", nil, "only in these `states`: dispatched, claimed, online, busy, finished, lost, stopped")
	fl.IntVar(&limit, "limit", 50, "at most so many")
	fl.BoolVar(&watched, "watch", false, "list them again every 2 s, until interrupted")
	o.flags(fl)
	o.dbFlag(fl)
	return cmd
}

// listRunners asks for pages until there are limit runners, or no more.
func (o *operator) listRunners(ctx context.Context, params url.Values, limit int) (list web.RunnerList, err error) {
	list.Runners = []web.Runner{}
	params.Del("cursor")
	for {
		params.Set("limit", strconv.Itoa(min(limit-len(list.Runners), pageSize)))
		var page web.RunnerList
		if o.db != "" {
			err = o.read(ctx, func(b web.Books) (err error) {
				page, err = web.ListRunners(ctx, b, params)
				return err
			})
		} else {
			err = o.ask(ctx, http.MethodGet, web.Prefix+"/runners", params, nil, &page)
		}
		if err != nil {
			return list, err
		}
		list.Runners, list.NextCursor = append(list.Runners, page.Runners...), page.NextCursor
		if list.NextCursor == "" || len(list.Runners) >= limit {
			return list, nil
		}
		params.Set("cursor", list.NextCursor)
	}
}

func writeRunners(out io.Writer, runners []web.Runner, columns int, now time.Time) error {
	t := table{columns: columns}
	t.row("RUNNER", "STATE", "FOR", "JOB", "NODE", "NOMAD JOB", "WHY")
	for _, r := range runners {
		t.row(r.ID, string(r.State), ago(now, r.StateAt), strconv.FormatInt(r.JobID, 10), r.Node, r.NomadJob, r.Reason)
	}
	return t.write(out)
}

func runnersStopCommand() *cobra.Command {
	var o operator
	var force bool
	cmd := &cobra.Command{
		Use:   "stop RUNNER…",
		Short: "Stop runners",
		Long: `Stop has the running server end runners, each given by its ID, gha-JOB-TRY: it is
removed from GitHub, so that it is given no job any more, then its Nomad job is
stopped. A job that waits for it gets another runner.

Exit code 0: done. 1: it has a job, or has ended; the sentence says so.
2: could not tell.`,
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
			for _, id := range args {
				var r web.Runner
				if err := o.ask(cmd.Context(), http.MethodPost, web.Prefix+"/runners/"+url.PathEscape(id)+"/stop", params, nil, &r); err != nil {
					return answered(err)
				}
				if err := o.said(cmd.OutOrStdout(), r, "runner %s is %s: %s", printable(r.ID), r.State, printable(r.Reason)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.BoolVar(&force, "force", false, "also one that has a job of GitHub's, which fails")
	o.flags(fl)
	return cmd
}
