package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"switchyard/jobspecs"
	"switchyard/rules"
)

func checkCommand() *cobra.Command {
	var specDir string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a rules file",
		Long: `Check reports every fault of a rules file with its place.

Exit code 0: no fault. 1: faults. 2: could not tell.`,
		Example: "  switchyard check rules.example.yaml",
		Args:    exactlyOne("rules file", "switchyard check rules.example.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, _, err := loadRules(cmd.ErrOrStderr(), args[0], specDir)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: no faults, %s\n", args[0], count(len(set.Rules()), "rule"))
			return err
		},
	}
	cmd.Flags().StringVar(&specDir, "jobspecs", "", "`directory` of your own jobspecs, beside the built-in ones")
	return cmd
}

// exactlyOne is cobra.ExactArgs(1) with a hint.
func exactlyOne(what, example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("want one %s, got %d arguments; for example: %s", what, len(args), example)
		}
		return nil
	}
}

// loadRules loads the built-in jobspecs, those of specDir ("" for none), and a
// rules file, which it checks against them. The faults of the rules file are
// printed; the error is then errNo.
func loadRules(stderr io.Writer, file, specDir string) (*rules.Set, *jobspecs.Set, error) {
	specs, err := jobspecs.Load(specDir)
	if err != nil {
		return nil, nil, fmt.Errorf("load jobspecs: %w", err)
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read the rules file: %w", err)
	}
	set, err := rules.Parse(file, src)
	var faults rules.Diagnostics
	switch {
	case errors.As(err, &faults):
	case err != nil:
		return nil, nil, fmt.Errorf("load the rules file: %w", err)
	default:
		faults = set.CheckJobspecs(specs.Names())
	}
	if len(faults) == 0 {
		return set, specs, nil
	}
	for _, f := range faults {
		fmt.Fprintf(stderr, "%s\n%s", f, f.Excerpt(src))
	}
	fmt.Fprintf(stderr, "%s: %s\n", file, count(len(faults), "fault"))
	return nil, nil, errNo
}

// count says "1 fault", "2 faults".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
