package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/rulebook"
	"switchyard/router/store"
	"switchyard/router/usage"
	"switchyard/router/web/api"
	"switchyard/rules"
)

func usageCommand() *cobra.Command {
	var o operator
	var by, since, until string
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Show what jobs used, and what that cost",
		Long: `Usage counts the jobs that ended in a period: the minutes that they were queued
and ran, what their runners reserved, what that cost by the prices of the rules,
and what was reserved by runners that never had a job. It compares that with the
period before. With --db it reads a database instead of asking a server.

Exit codes: 0, counted; 2, failed.`,
		Example: "  switchyard usage --by owner --since 30d --format csv",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(o.format, "text", "json", "csv"); err != nil {
				return err
			}
			now := time.Now()
			params := url.Values{"by": {by}}
			for name, value := range map[string]string{"since": since, "until": until} {
				t, err := timeFlag(name, value, now)
				if err != nil {
					return err
				}
				if !t.IsZero() {
					params.Set(name, t.UTC().Format(time.RFC3339Nano))
				}
			}
			r, err := get(cmd.Context(), &o, "/usage", params, func(b api.Database) (usage.Report, error) {
				prices, err := keptPrices(cmd.Context(), b.(*store.Reader))
				if err != nil {
					return usage.Report{}, err
				}
				return api.CountUsage(cmd.Context(), b, nil, params, prices, now)
			})
			if err != nil {
				return err
			}
			switch o.format {
			case "json":
				return writeJSON(cmd.OutOrStdout(), r)
			case "csv":
				return writeUsageCSV(cmd.OutOrStdout(), r)
			}
			columns, _ := width(cmd.OutOrStdout())
			return writeUsage(cmd.OutOrStdout(), r, columns)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&by, "by", "repo", "what is counted together: repo, owner, rule, label, node_class or workflow")
	fl.StringVar(&since, "since", "30d", "count jobs that ended since then: a `time` such as 36h, 30d or 2026-11-01")
	fl.StringVar(&until, "until", "", "count jobs that ended before then; now when left out")
	o.flags(fl)
	fl.Lookup("format").Usage = "text, json or csv"
	fl.StringVar(&o.db, "db", "", "read this `database` instead of asking a server: a file, or a URL postgres://…")
	return cmd
}

// keptPrices returns the prices of the rules that a database has; none if it has no rules.
func keptPrices(ctx context.Context, r *store.Reader) (rules.Prices, error) {
	set, err := keptRules(ctx, r)
	if errors.Is(err, router.ErrNotFound) {
		return rules.Prices{}, nil
	}
	if err != nil {
		return rules.Prices{}, fmt.Errorf("read the prices: %w", err)
	}
	return set.Prices(), nil
}

// keptRules returns the rules that a database has, or router.ErrNotFound.
func keptRules(ctx context.Context, r *store.Reader) (*rules.Set, error) {
	v, err := r.NewestRules(ctx)
	if err != nil {
		return nil, err
	}
	set, faults, err := rulebook.Load(ctx, v.Files)
	if err == nil && set == nil {
		err = faults
	}
	if err != nil {
		return nil, fmt.Errorf("the rules in the database: %w", err)
	}
	return set, nil
}

func writeUsage(out io.Writer, r usage.Report, columns int) error {
	count := func(n int) string { return router.Thousands(n, ",") }
	if _, err := fmt.Fprintf(out, "%s to %s, by %s\n", r.From.Format("2006-01-02 15:04"), r.Until.Format("2006-01-02 15:04 MST"), r.By); err != nil {
		return err
	}
	if r.Begins == nil || r.Begins.After(r.From) {
		said := "no job has ended yet"
		if r.Begins != nil {
			said = "the first job in the database ended at " + r.Begins.UTC().Format("2006-01-02 15:04 MST")
		}
		if _, err := fmt.Fprintln(out, said); err != nil {
			return err
		}
	}
	t := table{columns: columns}
	head := []string{strings.ToUpper(string(r.By)), "JOBS", "QUEUED", "95%", "RUN", "CPU-HOURS", "GIB-HOURS", "DEVICE-HOURS", "WASTED CPU-HOURS"}
	if r.Currency != "" {
		head = append(head, "COST "+r.Currency, "WASTED "+r.Currency)
	}
	t.row()
	t.row(append(head, "TREND")...)
	line := func(name string, w usage.Row) {
		cells := []string{
			name, count(w.Jobs), minutesOf(w.QueuedMinutes), short(time.Duration(w.QueueP95 * float64(time.Second))), minutesOf(w.RunMinutes),
			w.CPUHours.Cents(), w.GiBHours.Cents(), w.DeviceHours.Cents(), w.Wasted.CPUHours.Cents(),
		}
		if r.Currency != "" {
			cells = append(cells, w.Cost.Cents(), w.Wasted.Cost.Cents())
		}
		t.row(append(cells, cmp.Or(r.Trend(w), "-"))...)
	}
	for _, w := range r.Rows {
		line(r.Shown(w), w)
	}
	if r.Others != nil {
		line("(others)", *r.Others)
	}
	line("TOTAL", r.Total)
	if err := t.write(out); err != nil {
		return err
	}
	if r.Total.Unsized > 0 {
		_, err := fmt.Fprintf(out, "\n%s used the CPU or memory of the jobspec, which is not counted: set resources in the rules\n", router.Count(r.Total.Unsized, "runner"))
		return err
	}
	return nil
}

func minutesOf(a usage.Amount) string { return router.Thousands(int((a+5e5)/1e6), ",") + " min" }

func writeUsageCSV(out io.Writer, r usage.Report) error {
	w := csv.NewWriter(out)
	rows := [][]string{{
		string(r.By), "jobs", "not_run", "unsized", "queued_minutes", "run_minutes", "cpu_hours", "gib_hours", "device_hours", "cost",
		"wasted_runners", "wasted_cpu_hours", "wasted_gib_hours", "wasted_device_hours", "wasted_cost", "currency", "queue_p50_seconds", "queue_p95_seconds",
	}}
	line := func(name string, u usage.Row) {
		seconds := func(s float64) string { return strconv.FormatFloat(s, 'f', -1, 64) }
		rows = append(rows, []string{
			cell(name), strconv.Itoa(u.Jobs), strconv.Itoa(u.NotRun), strconv.Itoa(u.Unsized), u.QueuedMinutes.String(), u.RunMinutes.String(),
			u.CPUHours.String(), u.GiBHours.String(), u.DeviceHours.String(), u.Cost.String(), strconv.Itoa(u.Wasted.Runners), u.Wasted.CPUHours.String(),
			u.Wasted.GiBHours.String(), u.Wasted.DeviceHours.String(), u.Wasted.Cost.String(), r.Currency, seconds(u.QueueP50), seconds(u.QueueP95),
		})
	}
	for _, u := range r.Rows {
		line(r.Shown(u), u)
	}
	if r.Others != nil {
		line("(others)", *r.Others)
	}
	return w.WriteAll(rows)
}

// cell returns a stranger's text for a spreadsheet, which must not take it for a formula.
func cell(name string) string {
	if name = router.Printable(name); strings.ContainsAny(name[:min(1, len(name))], "=+-@") {
		return "'" + name
	}
	return name
}
