package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"switchyard/router/store"
)

func backupCommand() *cobra.Command {
	var db, output string
	cmd := &cobra.Command{
		Use:   "backup --output FILE",
		Short: "Copy the server's database, which may be in use",
		Long: `Backup writes a copy of the database to a new file, readable by its owner
only. A server may be using the database; nothing in it is changed.

To restore a copy, stop the server, remove switchyard.db-wal and
switchyard.db-shm, put the copy in the place of switchyard.db, and start the
server: it asks GitHub again for what came since.

Exit code 0: written. 2: could not.`,
		Example: "  switchyard backup --db switchyard.db --output backup.db",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "" {
				return errors.New("--output FILE is missing; see switchyard backup --help")
			}
			if err := store.Backup(cmd.Context(), db, output); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: a copy of %s\n", output, db)
			return err
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&db, "db", "switchyard.db", "the server's database `file`")
	fl.StringVar(&output, "output", "", "`file` to write, which must not exist")
	return cmd
}
