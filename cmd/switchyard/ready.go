package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/server"
)

const readyTimeout = 10 * time.Second

func readyCommand() *cobra.Command {
	var o operator
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Say whether a server takes deliveries, as a health check",
		Long: `Ready asks a running server's /readyz, for which it needs no token. It is the
health command of the container image.

Exit codes: 0, it takes deliveries; 1, it does not; 2, could not tell.`,
		Example: "  switchyard ready",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := o.ready(cmd.Context())
			if err != nil {
				return fmt.Errorf("ask whether the server is ready: %w", err)
			}
			line := r.Status
			if r.Reason != "" {
				line += ": " + r.Reason
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), router.Printable(line))
			if err == nil && r.Status == "not ready" {
				err = errNo
			}
			return err
		},
	}
	o.serverFlag(cmd.Flags())
	return cmd
}

// ready returns the server's answer, be it ready or not.
func (o *operator) ready(ctx context.Context) (r server.Readiness, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	req, err := o.request(ctx, http.MethodGet, "/readyz", nil, nil)
	if err != nil {
		return r, err
	}
	resp, err := o.client().Do(req)
	if err != nil {
		return r, fmt.Errorf("%w; %s", err, o.hint())
	}
	defer resp.Body.Close()
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&r)
	if err != nil || r.Status == "" {
		return r, fmt.Errorf("%s answered %s, which is not Switchyard's; %s", o.server, router.Printable(resp.Status), o.hint())
	}
	return r, nil
}
