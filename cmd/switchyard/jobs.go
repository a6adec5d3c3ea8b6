package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/store"
)

func jobsCommand() *cobra.Command {
	return group("jobs", "List, show and change jobs",
		"  switchyard jobs list --state queued,retrying", jobsListCommand(), jobsShowCommand(), jobsRetryCommand(), jobsCancelCommand(), jobsSyncCommand(), jobsExportCommand())
}

func jobsExportCommand() *cobra.Command {
	var db, since, output string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the recorded jobs as JSON lines",
		Long: `Export writes every recorded job as the rules see it, with when it ran, one job per line, oldest
first, for switchyard diff and simulate. A server may use the database meanwhile; the database
is not changed.

Exit codes: 0, written; 2, failed.`,
		Example: "  switchyard jobs export --db switchyard.db --since 30d --output history.jsonl",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := timeFlag("since", since, time.Now())
			if err != nil {
				return err
			}
			return exportJobs(cmd.Context(), cmd.OutOrStdout(), db, from, output)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&db, "db", "switchyard.db", "the server's `database`: a file, or a URL postgres://…")
	fl.StringVar(&since, "since", "", "only jobs received since then: a `time` such as 36h, 30d, 2026-11-01 or 2026-11-01T08:00:00Z")
	fl.StringVar(&output, "output", "", "`file` to write, which only its owner can read (standard output)")
	return cmd
}

// timeFlag parses the value of --since or --until; "" is the zero time, no bound.
// A date begins at midnight in UTC.
func timeFlag(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--%s %q: want a time such as 36h, 30d, 2026-11-01 or 2026-11-01T08:00:00Z", flag, s)
}

func exportJobs(ctx context.Context, stdout io.Writer, db string, since time.Time, output string) (err error) {
	jobs, err := store.OpenReadOnly(ctx, db)
	if err != nil {
		return err
	}
	defer jobs.Close()
	to := stdout
	if output != "" {
		// Only for its owner, like the database: it names private repositories.
		f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("write the jobs: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to = f
	}
	out := bufio.NewWriter(to)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	n := 0
	for j, err := range jobs.Jobs(ctx, since) {
		if err != nil {
			return err
		}
		b.Reset()
		if err := enc.Encode(j.Past()); err != nil {
			return fmt.Errorf("write the jobs: %w", err)
		}
		if _, err := out.Write(router.PrintableJSON(b.Bytes())); err != nil {
			return fmt.Errorf("write the jobs: %w", err)
		}
		n++
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the jobs: %w", err)
	}
	if output != "" {
		_, err = fmt.Fprintf(stdout, "%s: %s\n", output, router.Count(n, "job"))
	}
	return err
}
