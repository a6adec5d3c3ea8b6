package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/store"
)

func dbCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "db",
		Short: "Look at a database, or copy it to another one",
		Args:  noArgs,
	}
	cmd.AddCommand(dbCheckCommand(), dbCopyCommand())
	return cmd
}

func dbCopyCommand() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use:   "copy --from DATABASE --to DATABASE",
		Short: "Copy a database, from a file to PostgreSQL or back",
		Long: `Copy writes all of a database to another one, which must be empty: a file, or a
database in PostgreSQL, which is named by a URL. No server may use either of
them. What was written is read again and compared; each table is printed with
its rows and their SHA-256.

It is one transaction: if it fails or is stopped, the other database is as empty
as before, and the command can be run again. Afterwards start the server with
--db and the name of the other database.

Exit codes: 0, copied; 2, failed.`,
		Example: "  switchyard db copy --from switchyard.db --to postgres://switchyard@db.internal/switchyard",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" || to == "" {
				return errors.New("--from or --to is missing; see switchyard db copy --help")
			}
			tables, err := store.Copy(cmd.Context(), from, to, progress(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, t := range tables {
				fmt.Fprintf(tw, "%s\t%d\t%s\n", t.Table, t.Rows, t.Hash)
			}
			return tw.Flush()
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&from, "from", "", "the `database` to read: a file, or a URL postgres://…")
	fl.StringVar(&to, "to", "", "the `database` to write, likewise")
	return cmd
}

// progress says how many rows of a table are copied, every few seconds.
func progress(w io.Writer) func(table string, rows int64) {
	last := time.Now()
	return func(table string, rows int64) {
		if time.Since(last) > 2*time.Second {
			last = time.Now()
			fmt.Fprintf(w, "%s: %d rows\n", table, rows)
		}
	}
}

func dbCheckCommand() *cobra.Command {
	var db string
	cmd := &cobra.Command{
		Use:   "check --db DATABASE",
		Short: "Say what is in a database, and what is wrong with it",
		Long: `Check prints the version of a database and of its schema, its size, and its
oldest and newest job, and looks for what should not be there. No server may use
the database. An older schema is brought up to date first.

Exit codes: 0, nothing is wrong; 1, something is; 2, failed.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := store.Inspect(cmd.Context(), db)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "%s: %s, schema %d, %s, %s, %s\n", in.Name, in.Engine, in.Schema, router.Bytes(in.Size), router.Count(in.Jobs, "job"), router.Count(in.Runners, "runner"))
			if !in.Oldest.IsZero() {
				fmt.Fprintf(w, "the oldest job was received at %s, the newest at %s\n", in.Oldest.Format(time.RFC3339), in.Newest.Format(time.RFC3339))
			}
			for _, wrong := range in.Wrong {
				fmt.Fprintln(w, "wrong:", wrong)
			}
			if in.Wrong != nil {
				return errNo
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&db, "db", "switchyard.db", "the `database`: a file, or a URL postgres://…")
	return cmd
}
