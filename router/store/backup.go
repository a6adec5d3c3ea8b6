package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Backup writes a copy of the database file at path to the new file at to,
// readable by its owner only. A server may be using the database: the copy is
// what was committed when Backup began, whole or not there at all.
func Backup(ctx context.Context, path, to string) (err error) {
	if IsPostgres(path) {
		return errors.New("a PostgreSQL database is backed up by its own tools: use pg_dump, or switchyard db copy to copy it to a file")
	}
	r, err := OpenReadOnly(ctx, path)
	if err != nil {
		return err
	}
	defer r.Close()
	if to, err = filepath.Abs(to); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write a copy of the database to %s: %w", to, err)
		}
	}()
	if _, err := os.Lstat(to); err == nil {
		return errors.New("there is a file already; move it away, or name another")
	}
	// SQLite writes into an empty file, and does not say who may read it.
	part := to + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(part) // nothing, once it has its name
	defer f.Close()
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// What is opened to be read only stays so; this is for the copy.
	if _, err := conn.ExecContext(ctx, "PRAGMA query_only = 0"); err != nil {
		return explain(err)
	}
	if _, err := conn.ExecContext(ctx, "VACUUM INTO ?", part); err != nil {
		return explain(err)
	}
	if err := r.unused(); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(part, to)
}
