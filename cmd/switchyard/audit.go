package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"switchyard/router/web/api"

	"github.com/spf13/cobra"
)

func auditCommand() *cobra.Command {
	var o operator
	var limit int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what",
		Long: `Audit asks a running server who changed what, who logged in, and what was
refused to whom, newest first, with the address each came from and how the
person was identified. It needs a token with the role editor.

Exit codes: 0, shown; 2, failed.`,
		Example: "  switchyard audit --limit 20",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd, &o, func(ctx context.Context) (l api.AuditList, err error) {
				l.Audits, l.NextCursor, err = pages(url.Values{}, limit, func(params url.Values) ([]api.Audit, string, error) {
					var page api.AuditList
					err := o.ask(ctx, http.MethodGet, api.Prefix+"/audit", params, nil, &page)
					return page.Audits, page.NextCursor, err
				})
				return l, err
			}, writeAudits)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&limit, "limit", 50, "show at most this many")
	o.flags(fl)
	return cmd
}

func writeAudits(out io.Writer, l api.AuditList, columns int, _ time.Time) error {
	if len(l.Audits) == 0 {
		_, err := fmt.Fprintln(out, "nobody changed anything, or logged in")
		return err
	}
	t := table{columns: columns}
	t.row("WHEN", "WHO", "DID", "WHAT", "RESULT", "FROM", "BY")
	for _, a := range l.Audits {
		t.row(a.At.UTC().Format(time.RFC3339), a.Who, a.Did, a.What, a.Result, a.From, a.By)
	}
	return writeMore(out, l.NextCursor, t.write(out))
}
