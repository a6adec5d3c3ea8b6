package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
)

func rulesCommand() *cobra.Command {
	return group("rules", "Ask a running server about its rules", "  switchyard rules status", rulesStatusCommand())
}

func rulesStatusCommand() *cobra.Command {
	var addr, format string
	var o operator
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show which rules a running server has in force",
		Long: `Status asks a running server which rules are in force, since when, and whether
newer ones were refused and why.

Exit code 0: the newest rules are in force. 1: newer ones were refused.
2: could not tell.`,
		Example: "  switchyard rules status --addr http://127.0.0.1:8081",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("--format %q: want text or json", format)
			}
			status, err := askRulesStatus(cmd.Context(), addr, o.token)
			if err != nil {
				return err
			}
			if format == "json" {
				err = writeJSON(cmd.OutOrStdout(), status)
			} else {
				err = writeRulesStatus(cmd.OutOrStdout(), status)
			}
			if err == nil && status.Error != nil {
				err = errNo
			}
			return err
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "http://127.0.0.1:8081", "`URL` of the server's --admin-listen")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	o.tokenFlag(cmd.Flags())
	return cmd
}

func askRulesStatus(ctx context.Context, addr string, token func() (router.Secret, error)) (status router.RulesStatus, err error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	const hint = "is --addr the --admin-listen of a running switchyard serve?"
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(addr, "/")+router.RulesPath, nil)
	if err != nil {
		return status, fmt.Errorf("--addr: %w", err)
	}
	secret, err := token()
	if err != nil {
		return status, err
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+string(secret))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return status, fmt.Errorf("ask for the rules in force: %w; %s", err, hint)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return status, fmt.Errorf("%s answered %s; %s", addr, printable(resp.Status), hint)
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return status, fmt.Errorf("the answer of %s is none of switchyard's: %w; %s", addr, err, hint)
	}
	if status.LoadedAt.IsZero() {
		return status, fmt.Errorf("the answer of %s says nothing of rules; %s", addr, hint)
	}
	return status, nil
}

func writeRulesStatus(w io.Writer, s router.RulesStatus) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	when := func(t time.Time, origin string) string {
		return fmt.Sprintf("%s (%s)", t.UTC().Format(time.RFC3339), printable(origin))
	}
	fmt.Fprintf(tw, "in force\t%s\n", shortHash(s.Hash))
	fmt.Fprintf(tw, "loaded\t%s\n", when(s.LoadedAt, s.Origin))
	fmt.Fprintf(tw, "rules\t%d\n", s.Rules)
	for _, f := range s.Files {
		fmt.Fprintf(tw, "file\t%s\n", printable(f))
	}
	if e := s.Error; e != nil {
		fmt.Fprintf(tw, "refused\t%s\n", shortHash(e.Hash))
		fmt.Fprintf(tw, "since\t%s\n", when(e.Since, e.Origin))
		fmt.Fprintf(tw, "reason\t%s\n", printable(e.Reason))
	}
	if err := tw.Flush(); err != nil || s.Error == nil {
		return err
	}
	for _, d := range s.Error.Diagnostics {
		if _, err := fmt.Fprintf(w, "%s\n", printable(d.String())); err != nil {
			return err
		}
	}
	return nil
}

// shortHash is enough of a hash for people to tell two apart.
func shortHash(hash string) string {
	if hash == "" {
		return "unknown"
	}
	return printable(hash[:min(len(hash), 12)])
}
