package main

import (
	"github.com/spf13/cobra"

	"switchyard/rules"
)

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a rules file, for editors",
		Long: `Schema prints the JSON Schema (draft-07) of a rules file. With it, editors
complete keys, explain them, and mark mistakes. A file names its schema in a
comment at its top: the first for VS Code and other editors with the YAML
language server, the second for JetBrains IDEs.

  # yaml-language-server: $schema=./rules.schema.json
  # $schema: ./rules.schema.json`,
		Example: "  switchyard schema > rules.schema.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(rules.Schema())
			return err
		},
	}
}
