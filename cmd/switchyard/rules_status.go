package main

import (
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
)

func rulesCommand() *cobra.Command {
	return group("rules", "Ask a running server about its rules", "  switchyard rules status", rulesStatusCommand())
}

func rulesStatusCommand() *cobra.Command {
	var o operator
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show which rules a running server has in force",
		Long: `Status asks a running server which rules are in force, since when, who applied
them, what they and the jobspecs change, and whether and why newer ones were
refused. If there are replicas, it shows which rules each has in force.

Exit codes: 0, the newest rules are in force; 1, newer ones were refused, or
replicas have different ones; 2, could not tell.`,
		Example: "  switchyard rules status --server http://127.0.0.1:8081",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if cmd.Flags().Changed("addr") {
				o.flag = "--addr"
			}
			var status router.RulesStatus
			err := o.ask(cmd.Context(), http.MethodGet, router.RulesPath, nil, nil, &status)
			if err == nil && status.LoadedAt.IsZero() {
				err = fmt.Errorf("the answer of %s has no rules", o.server)
			}
			if err != nil {
				return fmt.Errorf("ask for the rules in force: %w", err)
			}
			if o.format == "json" {
				err = writeJSON(cmd.OutOrStdout(), status)
			} else {
				err = writeRulesStatus(cmd.OutOrStdout(), status)
			}
			if err == nil && (status.Error != nil || status.Differ()) {
				err = errNo
			}
			return err
		},
	}
	fl := cmd.Flags()
	o.flags(fl)
	fl.StringVar(&o.server, "addr", o.server, "the same as --server")
	if err := fl.MarkHidden("addr"); err != nil { // its older name
		panic(err)
	}
	return cmd
}

func writeRulesStatus(w io.Writer, s router.RulesStatus) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	when := func(t time.Time, origin string) string {
		return fmt.Sprintf("%s (%s)", t.UTC().Format(time.RFC3339), router.Printable(origin))
	}
	fmt.Fprintf(tw, "in force\t%s\n", shortHash(s.Hash))
	fmt.Fprintf(tw, "loaded\t%s\n", when(s.LoadedAt, s.Origin))
	if s.Who != "" {
		fmt.Fprintf(tw, "by\t%s\n", router.Printable(s.Who))
	}
	for _, c := range s.Changes {
		fmt.Fprintf(tw, "changed\t%s\n", router.Printable(c))
	}
	fmt.Fprintf(tw, "rules\t%d\n", s.Rules)
	for _, f := range s.Files {
		fmt.Fprintf(tw, "file\t%s\n", router.Printable(f))
	}
	for _, r := range s.Replicas {
		leads := ""
		if r.Leads {
			leads = ", which leads"
		}
		fmt.Fprintf(tw, "replica\t%s has %s%s\n", router.Printable(r.Name), shortHash(r.RulesHash), leads)
	}
	if s.Differ() {
		fmt.Fprintf(tw, "differ\tthe replicas have different rules or jobspecs in force; those of the leader decide\n")
	}
	if e := s.Error; e != nil {
		fmt.Fprintf(tw, "refused\t%s\n", shortHash(e.Hash))
		fmt.Fprintf(tw, "since\t%s\n", when(e.Since, e.Origin))
		fmt.Fprintf(tw, "reason\t%s\n", router.Printable(e.Reason))
	}
	if err := tw.Flush(); err != nil || s.Error == nil {
		return err
	}
	for _, d := range s.Error.Diagnostics {
		if _, err := fmt.Fprintf(w, "%s\n", router.Printable(d.String())); err != nil {
			return err
		}
	}
	return nil
}

// shortHash returns enough of a hash for people to tell two apart.
func shortHash(hash string) string {
	if hash == "" {
		return "unknown"
	}
	return router.Printable(hash[:min(len(hash), 12)])
}
