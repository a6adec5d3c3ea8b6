// Command switchyard routes GitHub Actions jobs to HashiCorp Nomad.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitYes     = 0 // done; the answer is yes
	exitNo      = 1 // the answer is no: faults found, job not routed
	exitUnknown = 2 // could not tell: usage, file, network
)

// An exitError ends the program with a code. A nil err means that the message
// has been printed already.
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

// run runs the program and returns its exit code. The environment is the only
// global state that it reads.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "switchyard",
		Short: "Routes GitHub Actions jobs to HashiCorp Nomad",
		Long: `Switchyard receives GitHub's workflow_job webhooks, decides by a rules file
which runner serves each job, and starts that runner on Nomad.`,
		Example:       "  switchyard demo --once",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(initCommand(), serveCommand(), checkCommand(), testCommand(), explainCommand(), diffCommand(), statusCommand(), doctorCommand(), readyCommand(), rulesCommand(),
		jobsCommand(), runnersCommand(), fleetCommand(), usageCommand(), simulateCommand(), auditCommand(), tokenCommand(), backupCommand(), dbCommand(),
		schemaCommand(), demoCommand(), versionCommand())
	showFlagsInOrder(root)

	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitYes
	}
	exit, ok := errors.AsType[*exitError](err)
	if !ok {
		exit = &exitError{code: exitUnknown, err: err}
	}
	if exit.err != nil {
		fmt.Fprintf(stderr, "switchyard: %v\n", exit.err)
	}
	return exit.code
}

// showFlagsInOrder has the help of a command, and of those below it, list the flags in the
// order of the code.
func showFlagsInOrder(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	for _, sub := range cmd.Commands() {
		showFlagsInOrder(sub)
	}
}

// usageTemplate is cobra's usage template, with the example last.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{else}}{{.UseLine}}{{end}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{if .HasExample}}

Example:
{{.Example}}{{end}}
`

// noArgs refuses arguments as cobra.NoArgs does, with a hint.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasAvailableSubCommands():
		return fmt.Errorf("%s takes no arguments, got %q; see %[1]s --help", cmd.CommandPath(), args[0])
	}
	hint := "see " + cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q for %s; %s", args[0], cmd.CommandPath(), hint)
}

// group returns a command that only has subcommands.
func group(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}
