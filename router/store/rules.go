package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"switchyard/router"
)

// How many versions of the rules are kept, and how many bytes of their files together. The
// newest is kept whatever its size, and so is the newest that no editor applied: what came after
// it counts instead of those files.
const (
	keptVersions     = 200
	keptVersionBytes = 64 << 20
)

const (
	newestVersionSQL = `SELECT id, hash FROM rules_versions ORDER BY id DESC LIMIT 1`
	insertVersionSQL = `INSERT INTO rules_versions (id, at, hash, who, origin, note, files) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)`
	pruneVersionsSQL = `
DELETE FROM rules_versions WHERE id IN (
	SELECT id FROM (
		SELECT id, row_number() OVER newest AS n, sum(length(files)) OVER newest AS bytes FROM rules_versions WINDOW newest AS (ORDER BY id DESC)
	) AS v WHERE n > 1 AND (n > ?1 OR bytes > ?2)
) AND id <> coalesce((SELECT max(id) FROM rules_versions WHERE origin NOT IN ('applied', 'put back')), 0)`

	listVersionsSQL = `SELECT id, at, hash, who, origin, note, '' FROM rules_versions ORDER BY id DESC`
	oneVersionSQL   = `SELECT id, at, hash, who, origin, note, files FROM rules_versions WHERE id = ?1`
	lastVersionSQL  = `SELECT id, at, hash, who, origin, note, files FROM rules_versions ORDER BY id DESC LIMIT 1`
)

// KeepRules keeps a version of the rules and returns its ID, unless its files
// are those of the newest that is kept: then it returns that one's. Versions
// that are too many are forgotten, the oldest first.
func (s *Store) KeepRules(ctx context.Context, v router.KeptRules) (id int64, err error) {
	return s.keepRules(ctx, -1, v)
}

// KeepRulesAfter does what KeepRules does, with one version after the other, if the newest that
// is kept has the ID newest; 0: none is kept. Else the error is router.ErrRulesChanged, and it
// keeps none of them.
func (s *Store) KeepRulesAfter(ctx context.Context, newest int64, versions ...router.KeptRules) error {
	_, err := s.keepRules(ctx, newest, versions...)
	return err
}

// keepRules keeps versions after the newest, which must have the ID after unless that is negative.
func (s *Store) keepRules(ctx context.Context, after int64, versions ...router.KeptRules) (int64, error) {
	files := make([]string, len(versions))
	for i, v := range versions {
		text, err := json.Marshal(v.Files)
		if err != nil {
			return 0, fmt.Errorf("keep the rules: %w", err)
		}
		files[i] = string(text)
	}
	id, err := changed(ctx, s.db, router.SourceOperator, func(t *tx) (id int64, err error) {
		var newest string
		if err = t.query(into(&id, &newest), newestVersionSQL); err != nil {
			return 0, err
		}
		if after >= 0 && id != after {
			return 0, router.ErrRulesChanged
		}
		last := id
		for i, v := range versions {
			if v.Hash == newest {
				continue
			}
			id, newest = id+1, v.Hash
			if _, err = t.exec(insertVersionSQL, id, millis(v.At), v.Hash, v.Who, v.Origin, v.Note, files[i]); err != nil {
				return 0, err
			}
		}
		if id > last {
			_, err = t.exec(pruneVersionsSQL, keptVersions, keptVersionBytes)
		}
		return id, err
	})
	if err != nil {
		return 0, fmt.Errorf("keep the rules: %w", err)
	}
	return id, nil
}

func scanVersion(rows *sql.Rows, v *router.KeptRules) error {
	var at int64
	var files string
	if err := rows.Scan(&v.ID, &at, &v.Hash, &v.Who, &v.Origin, &v.Note, &files); err != nil {
		return err
	}
	v.At = fromMillis(at)
	if files == "" {
		return nil
	}
	return json.Unmarshal([]byte(files), &v.Files)
}

// RulesVersions returns the versions of the rules that are kept, the newest
// first, without their files.
func (s *Store) RulesVersions(ctx context.Context) ([]router.KeptRules, error) {
	return list(s.asked.querier(ctx), "list the versions of the rules", scanVersion, listVersionsSQL)
}

// RulesVersion returns one version of the rules, or router.ErrNotFound.
func (s *Store) RulesVersion(ctx context.Context, id int64) (router.KeptRules, error) {
	return only(s.asked.querier(ctx), fmt.Sprintf("read version %d of the rules", id), scanVersion, oneVersionSQL, id)
}

// NewestRules returns the newest version of the rules that is kept, or router.ErrNotFound.
func (r reads) NewestRules(ctx context.Context) (router.KeptRules, error) {
	return only(r.querier(ctx), "read the newest version of the rules", scanVersion, lastVersionSQL)
}

// Recent goes through the jobs of a scope that were received at since or later,
// the highest ID first: of each GitHub the newest first, that with the highest number first. It reads as Reader.Jobs does.
func (s *Store) Recent(ctx context.Context, since time.Time, within router.Scope) iter.Seq2[Recorded, error] {
	return s.newest(ctx, since, within, scanRecorded, recordedColumns)
}

// History goes through the same jobs with when they ran.
func (s *Store) History(ctx context.Context, since time.Time) iter.Seq2[Recorded, error] {
	return s.newest(ctx, since, nil, scanPast, pastColumns)
}

func (s *Store) newest(ctx context.Context, since time.Time, within router.Scope, scan func(*sql.Rows, *Recorded) error, columns string) iter.Seq2[Recorded, error] {
	return func(yield func(Recorded, error) bool) {
		s := search{q: s.asked.querier(ctx), f: router.JobFilter{Since: since, Within: within, Limit: jobsPage}}
		recorded(0, func(before int64) ([]Recorded, error) {
			s.f.Before = before
			return newest(&s, scan, columns, func(r Recorded) int64 { return r.Job.ID })
		})(yield)
	}
}
