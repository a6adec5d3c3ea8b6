package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/web/api"
)

func jobsRetryCommand() *cobra.Command {
	return jobChange(&cobra.Command{
		Use:   "retry JOB…",
		Short: "Decide a job again, or give it a new runner",
		Long: `Retry has the running server decide a job again that was ignored, denied or
unroutable, or that waits for a place under a limit or for its next attempt. A
job whose runner has not claimed yet gets a new runner. For one that waits for
newer runners, all jobs of its rule that do so go on.

Exit codes: 0, done; 1, the job's state does not allow it, with the reason;
2, could not tell.`,
		Example: "  switchyard jobs retry 48301234567",
	}, "retry", nil)
}

func jobsCancelCommand() *cobra.Command {
	var run bool
	cmd := jobChange(&cobra.Command{
		Use:   "cancel JOB…",
		Short: "Stop giving a job a runner",
		Long: `Cancel has the running server deny a job that no runner has taken, and stop a
runner that was started for it and has not claimed. GitHub keeps the job queued
until its run is cancelled there, which --run does; jobs retry undoes a cancel.

Exit codes: 0, done; 1, the job's state does not allow it, with the reason;
2, could not tell.`,
		Example: "  switchyard jobs cancel 48301234567",
	}, "cancel", func() url.Values {
		if run {
			return url.Values{"run": {"true"}}
		}
		return nil
	})
	cmd.Flags().BoolVar(&run, "run", false, "also cancel its workflow run on GitHub, with all its jobs")
	return cmd
}

func jobsSyncCommand() *cobra.Command {
	var o operator
	var repos []string
	var host string
	cmd := &cobra.Command{
		Use:   "sync --repo OWNER/NAME",
		Short: "Read all unfinished jobs of a repository from GitHub",
		Long: `Sync has the running server ask GitHub for the runs of a repository that have not
ended, and about the jobs that it has as waiting or running. This makes up for
lost deliveries.

Exit codes: 0, done; 1, GitHub refuses it for good; 2, could not tell, or
something must be fixed first, which the message names.`,
		Example: "  switchyard jobs sync --repo acme/web",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if len(repos) == 0 {
				return errors.New("--repo OWNER/NAME is missing; for example: --repo acme/web")
			}
			return each(repos, func(repo string) error {
				var r router.SyncReport
				if err := o.ask(cmd.Context(), http.MethodPost, api.Prefix+"/sync", nil, map[string]string{"host": host, "repo": repo}, &r); err != nil {
					return answered("repository "+router.Printable(repo), err)
				}
				more := ""
				if r.Cut {
					more = "; there are more: run it again later"
				}
				return o.said(cmd.OutOrStdout(), r, "%s: read %s of %s with %s, %d changed%s",
					router.Printable(r.Repo), router.Count(r.Jobs, "job"), router.Count(r.Runs, "run"), router.Count(r.Calls, "request"), r.Changed, more)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&repos, "repo", nil, "the `repository`, as owner/name; separate several by commas")
	fl.StringVar(&host, "host", "", "`host` of their GitHub (the server's first)")
	o.flags(fl)
	return cmd
}

// jobChange completes a command that has the server change jobs, one after the
// other.
func jobChange(cmd *cobra.Command, verb string, params func() url.Values) *cobra.Command {
	var o operator
	cmd.Args = someArgs("JOB", "48301234567")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := o.check(); err != nil {
			return err
		}
		var ids []int64
		for _, arg := range args {
			id, err := jobNumber(arg)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		var p url.Values
		if params != nil {
			p = params()
		}
		return each(ids, func(id int64) error {
			var d api.JobDetail
			if err := o.ask(cmd.Context(), http.MethodPost, fmt.Sprintf("%s/jobs/%d/%s", api.Prefix, id, verb), p, nil, &d); err != nil {
				return answered(fmt.Sprintf("job %d", id), err)
			}
			return o.said(cmd.OutOrStdout(), d, "job %d is %s: %s", d.Job.ID, d.Job.State, router.Printable(d.Job.Reason))
		})
	}
	o.flags(cmd.Flags())
	return cmd
}

// each calls do for all, even after an error, and joins the errors. The exit code
// is unknown if any error's is, and no otherwise.
func each[T any](all []T, do func(T) error) error {
	var errs []error
	code := exitNo
	for _, one := range all {
		err := do(one)
		if err == nil {
			continue
		}
		errs = append(errs, err)
		if _, ok := errors.AsType[*exitError](err); !ok {
			code = exitUnknown
		}
	}
	if errs == nil {
		return nil
	}
	return &exitError{code, errors.Join(errs...)}
}

// said prints a result: as JSON, or as a line.
func (o *operator) said(out io.Writer, v any, format string, args ...any) error {
	if o.format == "json" {
		return writeJSON(out, v)
	}
	_, err := fmt.Fprintf(out, format+"\n", args...)
	return err
}

// someArgs requires arguments, with an example of one.
func someArgs(what, example string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s wants at least one %s, such as %s; see %[1]s --help", cmd.CommandPath(), what, example)
		}
		return nil
	}
}
