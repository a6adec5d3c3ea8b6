package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/web/api"
)

func statusCommand() *cobra.Command {
	var o operator
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is wrong, what changed lately, and what worked last",
		Long: `Status asks a running server what is wrong, the worst first: what was said about
it, what to do, since when and after which change, and whom it hits; then what
changed lately, and when things last worked.

Exit codes: 0, nothing is wrong that needs an operator; 1, something is; 2, could
not tell.`,
		Example: "  switchyard status",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			var s router.Status
			err := o.ask(cmd.Context(), http.MethodGet, api.Prefix+"/status", nil, nil, &s)
			if err == nil && s.Status == "" {
				err = fmt.Errorf("the answer of %s has no status", o.server)
			}
			if err != nil {
				return fmt.Errorf("ask for the status: %w", err)
			}
			if o.format == "json" {
				err = writeJSON(cmd.OutOrStdout(), s)
			} else {
				err = writeStatus(cmd.OutOrStdout(), s, time.Now())
			}
			if err == nil && s.Status != "ok" {
				err = errNo
			}
			return err
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

// writeStatus prints a status for people: the first line says the worst.
func writeStatus(w io.Writer, s router.Status, now time.Time) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if len(s.Troubles) == 0 {
		line("all is well")
	}
	for i, t := range s.Troubles {
		if i > 0 {
			line("")
		}
		line("%s: %s", t.Severity, router.Printable(t.What))
		if t.Said != "" {
			line("  said: %s", router.Printable(t.Said))
		}
		line("  do: %s", router.Printable(t.Fix))
		after := s.After(t, short)
		if after != "" {
			after = ", " + router.Printable(after)
		}
		line("  since %s (%s ago)%s", t.Since.UTC().Format(time.RFC3339), ago(now, t.Since), after)
		if t.Where != "" {
			line("  hits %s", router.Printable(t.Where))
		}
		if len(t.Groups) == 1 {
			line("  such as: switchyard jobs show %d", t.Groups[0].Newest)
		}
		if len(t.Groups) > 1 {
			for _, g := range t.Groups[:min(len(t.Groups), router.TroubleNames)] {
				line("  - %s: %d, such as %d", router.Printable(strings.TrimLeft(g.Rule+" "+g.Repository, " ")), g.Jobs, g.Newest)
			}
		}
	}
	if says := router.SaysReplicas(s.Replicas); says != "" {
		line("\nasked %s", router.Printable(says))
	}
	if len(s.Changes) > 0 {
		line("\nchanged lately")
		for _, c := range s.Changes {
			line("  %s (%s ago)  %s", c.At.UTC().Format(time.RFC3339), ago(now, c.At), router.Printable(c.Said()))
		}
	}
	line("\nworked last")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range s.Proof {
		when := "not since the server started"
		if !p.At.IsZero() {
			when = ago(now, p.At) + " ago"
		}
		fmt.Fprintf(tw, "  %s\t%s\n", router.Printable(p.What), when)
	}
	return tw.Flush()
}
