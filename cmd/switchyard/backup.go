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
		Short: "Back up the server's database, even while it is in use",
		Long: `Backup writes a copy of the database to a new file that only its owner can
read. A server may use the database meanwhile; the database is not changed.

To restore a backup, stop the server, remove switchyard.db-wal and
switchyard.db-shm, copy the backup over switchyard.db, and start the server. It
has GitHub redeliver what came since.

Exit codes: 0, written; 2, failed.`,
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
	fl.StringVar(&db, "db", "switchyard.db", "the server's database `file`")
	fl.StringVar(&output, "output", "", "`file` to write, which must not exist")
	return cmd
}
