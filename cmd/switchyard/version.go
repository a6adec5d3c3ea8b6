package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"switchyard/jobspecs"
	"switchyard/router/telemetry"
)

func versionCommand() *cobra.Command {
	var format string
	var runner bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version, its commit and that commit's date",
		Example: "  switchyard version --format json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, "text", "json"); err != nil {
				return err
			}
			if runner {
				if format == "json" {
					return writeJSON(cmd.OutOrStdout(), map[string]string{"runner": jobspecs.RunnerVersion})
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), jobspecs.RunnerVersion)
				return err
			}
			b := telemetry.ThisBuild()
			if format == "json" {
				return writeJSON(cmd.OutOrStdout(), b)
			}
			line := "switchyard " + b.Version
			if b.Commit != "" {
				line += " " + b.Commit
			}
			if !b.Date.IsZero() {
				line += " " + b.Date.UTC().Format(time.RFC3339)
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), line, b.Go)
			return err
		},
	}
	cmd.Flags().BoolVar(&runner, "runner", false, "print the version of GitHub's runner that the built-in jobspecs carry")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}
