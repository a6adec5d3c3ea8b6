package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"switchyard/router"
)

const (
	heardHookSQL = `
UPDATE hooks SET heard_at = max(heard_at, ?5) WHERE kind = ?1 AND id = ?2 AND owner = ?3 COLLATE NOCASE AND repo = ?4 COLLATE NOCASE`

	newHookSQL = `
INSERT INTO hooks (kind, id, owner, repo, swept, newest, cursor, heard_at, proved)
SELECT ?1, ?2, ?3, ?4, ?6, 0, '', ?5, false
WHERE (SELECT count(*) FROM hooks WHERE NOT proved AND kind = ?1 AND owner = ?3 COLLATE NOCASE AND repo = ?4 COLLATE NOCASE AND id >> 48 = ?2 >> 48) < ?7
ON CONFLICT (kind, id) DO NOTHING`

	fewerHooksSQL = `
DELETE FROM hooks WHERE (kind, id) IN (
	SELECT kind, id FROM hooks WHERE kind <> 'integration' ORDER BY heard_at DESC, kind, id LIMIT 1000000 OFFSET ?)`
)

// RecordHook implements intake.SweepStore.
func (s *intakeStore) RecordHook(ctx context.Context, h router.Hook, swept, now time.Time) (known bool, err error) {
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		n, err := t.exec(heardHookSQL, h.Kind, h.ID, h.Owner, h.Repo, millis(now))
		if n > 0 || err != nil {
			return true, err
		}
		n, err = t.exec(newHookSQL, h.Kind, h.ID, h.Owner, h.Repo, millis(now), millis(swept), router.MaxUnprovedHooks)
		if n == 0 || err != nil {
			return false, err
		}
		_, err = t.exec(fewerHooksSQL, router.MaxHooks)
		return true, err
	})
}

// ForgetHook implements intake.SweepStore.
func (s *intakeStore) ForgetHook(ctx context.Context, h router.Hook) error {
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		for _, query := range []string{
			`DELETE FROM redeliveries WHERE hook_kind = ?1 AND hook_id = ?2`,
			`DELETE FROM hooks WHERE kind = ?1 AND id = ?2`,
		} {
			if _, err := t.exec(query, h.Kind, h.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// Hooks implements intake.SweepStore.
func (s *intakeStore) Hooks(ctx context.Context) ([]router.HookSweep, error) {
	return list(s.querier(ctx), "list the webhooks", func(rows *sql.Rows, h *router.HookSweep) error {
		var swept, newest, heard int64
		err := rows.Scan(&h.Kind, &h.ID, &h.Owner, &h.Repo, &swept, &newest, &h.Cursor, &heard, &h.Proved)
		h.Swept, h.Newest, h.Heard = fromMillis(swept), fromMillis(newest), fromMillis(heard)
		return err
	}, `SELECT kind, id, owner, repo, swept, newest, cursor, heard_at, proved FROM hooks ORDER BY kind <> 'integration', heard_at DESC, kind, id`)
}

const (
	sweptSQL = `UPDATE hooks SET swept = ?3, newest = ?4, cursor = ?5, proved = ?6 WHERE kind = ?1 AND id = ?2`

	// One that is known stays due when it was.
	failedDeliverySQL = `
INSERT INTO redeliveries (guid, hook_kind, hook_id, delivery_id, sent_at, tries, due_at, action)
SELECT ?1, ?2, ?3, ?4, ?5, 0, ?6, ?7 WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE id = ?1)
ON CONFLICT (guid) DO UPDATE SET delivery_id = excluded.delivery_id, hook_kind = excluded.hook_kind, hook_id = excluded.hook_id
	WHERE excluded.delivery_id > redeliveries.delivery_id`
)

// Swept implements intake.SweepStore.
func (s *intakeStore) Swept(ctx context.Context, h router.HookSweep, lost []router.SentDelivery, now time.Time) error {
	return s.writer.change(ctx, router.SourceRouter, func(t *tx) error {
		for _, d := range lost {
			if _, err := t.exec(failedDeliverySQL, d.GUID, h.Kind, h.ID, d.ID, millis(d.At), millis(now), d.Action); err != nil {
				return err
			}
		}
		_, err := t.exec(sweptSQL, h.Kind, h.ID, millis(h.Swept), millis(h.Newest), h.Cursor, h.Proved)
		return err
	})
}

const unrecordedSQL = `
SELECT value FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE id = value)`

// Unrecorded implements intake.PollStore.
func (s *intakeStore) Unrecorded(ctx context.Context, guids []string) ([]string, error) {
	asked, err := json.Marshal(guids)
	if err != nil {
		return nil, err
	}
	return list(s.querier(ctx), "look for deliveries", func(rows *sql.Rows, guid *string) error { return rows.Scan(guid) }, unrecordedSQL, string(asked))
}

const (
	arrivedSQL = `DELETE FROM redeliveries WHERE sent_at < ? OR guid IN (SELECT r.guid FROM redeliveries r JOIN deliveries d ON d.id = r.guid)`

	// First those of jobs that ended or run: what is queued is not started then
	// for nothing.
	redeliveriesSQL = `
SELECT guid, delivery_id, tries, kind, id, owner, repo FROM redeliveries JOIN hooks ON kind = hook_kind AND id = hook_id
WHERE due_at <= ? ORDER BY action <> 'completed', action <> 'in_progress', sent_at, delivery_id LIMIT ?`

	redeliveredSQL = `UPDATE redeliveries SET tries = tries + 1, due_at = ?2 WHERE guid = ?1`
)

// Redeliveries implements intake.SweepStore.
func (s *intakeStore) Redeliveries(ctx context.Context, now, old time.Time, limit int) (due []router.Redelivery, err error) {
	due, err = changed(ctx, s.db, router.SourceRouter, func(t *tx) ([]router.Redelivery, error) {
		if _, err := t.exec(arrivedSQL, millis(old)); err != nil {
			return nil, err
		}
		return all(t.query, func(rows *sql.Rows, r *router.Redelivery) error {
			return rows.Scan(&r.GUID, &r.DeliveryID, &r.Tries, &r.Hook.Kind, &r.Hook.ID, &r.Hook.Owner, &r.Hook.Repo)
		}, redeliveriesSQL, millis(now), limit)
	})
	if err != nil {
		return nil, fmt.Errorf("read the deliveries to redeliver: %w", err)
	}
	return due, nil
}

// RedeliverNow implements intake.SweepStore.
func (s *intakeStore) RedeliverNow(ctx context.Context, now time.Time) error {
	return s.exec(ctx, router.SourceRouter, `UPDATE redeliveries SET due_at = ?1 WHERE due_at > ?1`, millis(now))
}

// Redelivered implements intake.SweepStore.
func (s *intakeStore) Redelivered(ctx context.Context, guid string, again time.Time) error {
	return s.exec(ctx, router.SourceRouter, redeliveredSQL, guid, orNever(again))
}

const (
	// Times in milliseconds: ?1 is now, ?2 how long a job may be unserved.
	staleSQL = `
SELECT ` + jobColumns + ` FROM jobs WHERE id IN (
	SELECT id FROM jobs
	WHERE state IN ('held', 'queued', 'retrying', 'dispatched', 'running') AND (
		((state IN ('queued', 'retrying', 'dispatched') OR state = 'held' AND (limit_key <> '' OR cause = 'runner_version'))
			AND ?1 - max(asked_at, received_at) >= min(max(?2, (asked_at - received_at) / 2), 36 * ?2))
		OR (state = 'held' AND limit_key = '' AND cause <> 'runner_version'
			AND ?1 - max(asked_at, updated_at) >= min(max(?2 / 10, (asked_at - updated_at) / 2), 36 * ?2))
		OR (state = 'running'
			AND ?1 - max(asked_at, running_at) >= min(max(6 * ?2, (asked_at - running_at) / 2), 36 * ?2)))
	ORDER BY max(asked_at, received_at), id LIMIT ?3)
ORDER BY max(asked_at, received_at), id`

	askedSQL = `UPDATE jobs SET asked_at = ?2 WHERE id = ?1`
)

// Stale implements intake.Store.
func (s *intakeStore) Stale(ctx context.Context, now time.Time, unserved time.Duration, limit int) ([]router.Job, error) {
	return list(s.querier(ctx), "read the jobs to ask GitHub about", scanJob, staleSQL, millis(now), unserved.Milliseconds(), limit)
}

// Asked implements intake.Store.
func (s *intakeStore) Asked(ctx context.Context, jobID int64, now time.Time) error {
	return s.exec(ctx, router.SourceGitHub, askedSQL, jobID, millis(now))
}

const openSQL = `
SELECT ` + jobColumns + ` FROM jobs
WHERE state IN ('held', 'queued', 'retrying', 'dispatched', 'running') AND lower(owner) = lower(?1) AND lower(repo) = lower(?2) AND id >> 48 = ?3
ORDER BY id`

// Open implements intake.SyncStore.
func (s *intakeStore) Open(ctx context.Context, instance int64, owner, repo string) ([]router.Job, error) {
	return list(s.querier(ctx), "read the open jobs of "+owner+"/"+repo, scanJob, openSQL, owner, repo, instance)
}

const latestSQL = `
SELECT max(coalesce((SELECT max(received_at) FROM deliveries), 0), coalesce((SELECT at FROM events ORDER BY id DESC LIMIT 1), 0))`

// Latest implements server.Store.
func (s *intakeStore) Latest(ctx context.Context) (time.Time, error) {
	var at int64
	if err := s.querier(ctx)(into(&at), latestSQL); err != nil {
		return time.Time{}, fmt.Errorf("read when something was last recorded: %w", err)
	}
	return fromMillis(at), nil
}

const reposSQL = `SELECT host, min(owner), min(repo) FROM jobs WHERE received_at >= ? GROUP BY host, lower(owner), lower(repo) ORDER BY max(received_at) DESC LIMIT ?`

// Repos implements intake.SyncStore.
func (s *intakeStore) Repos(ctx context.Context, since time.Time, limit int) ([]router.Repo, error) {
	return list(s.querier(ctx), "list the repositories of recent jobs", func(rows *sql.Rows, r *router.Repo) error {
		err := rows.Scan(&r.Host, &r.Owner, &r.Name)
		r.FullName = r.Owner + "/" + r.Name
		return err
	}, reposSQL, millis(since), limit)
}
