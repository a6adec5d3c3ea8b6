// Command switchyard routes GitHub Actions jobs to HashiCorp Nomad.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitYes     = 0 // done; the answer is yes
	exitNo      = 1 // the answer is no: faults found, job not routed
	exitUnknown = 2 // could not tell: usage, file, network
)

// An exitError ends the program with a code. With a nil err what there is to
// say has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// errNo is the answer no, already printed.
var errNo = &exitError{code: exitNo}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program: it reads nothing global but the environment, and
// returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "switchyard",
		Short: "Routes GitHub Actions jobs to HashiCorp Nomad",
		Long: `Switchyard receives GitHub's workflow_job webhooks, decides by the rules
file which runner serves each job, and starts that runner on Nomad.`,
		Example:       "  switchyard demo --once",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(serveCommand(), checkCommand(), testCommand(), explainCommand(), diffCommand(), rulesCommand(), jobsCommand(),
		schemaCommand(), demoCommand(), versionCommand())

	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitYes
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{code: exitUnknown, err: err}
	}
	if exit.err != nil {
		fmt.Fprintf(stderr, "switchyard: %v\n", exit.err)
	}
	return exit.code
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			version, revision := "(devel)", ""
			goVersion := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
				if info.Main.Version != "" {
					version = info.Main.Version
				}
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = " " + s.Value
					}
				}
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "switchyard %s%s %s\n", version, revision, goVersion)
			return err
		},
	}
}
