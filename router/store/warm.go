package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchyard/router"
)

const warmColumns = `id, rule, fit, state, reason, namespace, region, registered, doubted, node, asked, created_at, placed_at, ready_at, ended_at, job_id`

func scanWarm(rows *sql.Rows, w *router.WarmRunner) error {
	var asked string
	var created, placed, ready, ended int64
	err := rows.Scan(&w.ID, &w.Rule, &w.Fit, &w.State, &w.Reason, &w.NomadAt.Namespace, &w.NomadAt.Region, &w.Registered, &w.Doubted, &w.Node, &asked,
		&created, &placed, &ready, &ended, &w.JobID)
	if err != nil {
		return err
	}
	w.CreatedAt, w.PlacedAt, w.ReadyAt, w.EndedAt = fromMillis(created), fromMillis(placed), fromMillis(ready), fromMillis(ended)
	if err := json.Unmarshal([]byte(asked), &w.Asked); err != nil {
		return fmt.Errorf("decode what warm runner %s reserves: %w", w.ID, err)
	}
	return nil
}

// warmLive is the condition of the index warm_live.
const warmLive = `state IN ('starting', 'ready', 'stopped')`

// warmWaits is the condition for a warm runner that a job may take, or that it may be able to soon.
const warmWaits = `state IN ('starting', 'ready')`

const (
	warmSQL = `SELECT ` + warmColumns + ` FROM warm WHERE ` + warmLive

	warmOfSQL = `SELECT ` + warmColumns + ` FROM warm WHERE token_hash = ?`

	addWarmSQL = `
INSERT INTO warm (id, rule, fit, state, reason, token_hash, asked, created_at, namespace, region) VALUES (?1, ?2, ?3, 'starting', 'Nomad is asked for it', ?4, ?5, ?6, ?7, ?8)`

	warmRegisteredSQL = `
UPDATE warm SET registered = true, namespace = ?2, region = ?3, token_hash = ?4,
	reason = iif(state = 'starting' AND placed_at = 0, 'Nomad has it and will find it a node', reason) WHERE id = ?1`

	stopWarmSQL = `UPDATE warm SET state = 'stopped', reason = ?2, ended_at = ?3 WHERE id = ?1 AND ` + warmWaits + ` AND (NOT doubted OR placed_at = 0)`

	// Nothing waits at the claim whose Nomad job is gone, doubted or not.
	warmGoneSQL = `UPDATE warm SET state = 'stopped', reason = ?2, ended_at = ?3 WHERE id = ?1 AND ` + warmWaits

	endWarmSQL = `UPDATE warm SET state = 'ended' WHERE id = ?1 AND state = 'stopped'`

	doubtWarmSQL = `UPDATE warm SET doubted = true WHERE ` + warmWaits + ` AND NOT doubted`

	readyWarmSQL = `
UPDATE warm SET state = 'ready', doubted = false, ready_at = iif(ready_at = 0, ?2, ready_at), placed_at = iif(placed_at = 0, ?2, placed_at), reason = 'it waits at the claim for a job'
WHERE id = ?1 AND ` + warmWaits + ` AND (state = 'starting' OR doubted)`

	// Those that wait, by what the database has, are the others.
	noLongerWarmSQL = `
SELECT value FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM warm WHERE id = value AND state = 'ready' AND NOT doubted)`

	noWarmSQL = `SELECT value FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM warm WHERE id = value AND state <> 'ended')`

	// It may have come to the claim before.
	warmPlacedSQL = `
UPDATE warm SET placed_at = iif(placed_at = 0, ?2, placed_at), node = ?3, reason = iif(state = 'starting', 'it prepares itself on node ' || ?3, reason)
WHERE id = ?1 AND node = '' AND ` + warmWaits

	warmUnplacedSQL = `
UPDATE warm SET state = 'stopped', reason = '` + router.WarmNoNode + `', ended_at = ?2 WHERE id = ?1 AND placed_at = 0 AND ` + warmWaits

	// One that has come to the claim is there; of the others the oldest is there first.
	takeableSQL = `
SELECT ` + warmColumns + ` FROM warm WHERE rule = ?1 AND fit = ?2 AND ` + warmWaits + ` AND placed_at <> 0 AND NOT doubted
ORDER BY state = 'ready' DESC, created_at, id LIMIT 1`

	warmTakenSQL = `
UPDATE warm SET state = 'taken', reason = 'job ' || ?2 || ' has it', job_id = ?2, ended_at = ?3 WHERE id = ?1 AND ` + warmWaits + ` RETURNING token_hash`

	// It is a runner of the job, which Nomad has under another ID.
	takeWarmSQL = `
INSERT INTO runners (id, job_id, try, state, name, github_id, nomad_job, namespace, region, reason, created_at, updated_at, state_at, fit, own, rule, rules, placed_at, node)
VALUES (?1, ?2, ?3, 'dispatched', ?4, 0, ?5, ?6, ?7, ?8, ?9, ?9, ?9, ?10, false, ?11, ?12, ?9, ?13)
ON CONFLICT DO NOTHING`

	warmRunnersSQL = `SELECT count(*) FROM runners INDEXED BY runners_live WHERE ended_at = 0 AND rule = ?1 AND state IN ('dispatched', 'claimed', 'online', 'busy')`

	pruneWarmSQL = `DELETE FROM warm WHERE id IN (SELECT id FROM warm WHERE ended_at <> 0 AND ended_at < ?1 AND state IN ('taken', 'ended') LIMIT ?2)`
)

// WarmRunners implements warm.Store.
func (r reads) WarmRunners(ctx context.Context) ([]router.WarmRunner, error) {
	found, err := list(r.querier(ctx), "read the warm runners", scanWarm, warmSQL)
	slices.SortFunc(found, func(a, b router.WarmRunner) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	return found, err
}

// AddWarm implements warm.Store.
func (s *claimStore) AddWarm(ctx context.Context, w router.WarmRunner, tokenHash [32]byte, now time.Time) error {
	asked, err := json.Marshal(w.Asked)
	if err != nil {
		return err
	}
	return s.exec(ctx, router.SourceRouter, addWarmSQL, w.ID, w.Rule, w.Fit, tokenHash[:], string(asked), millis(now), w.NomadAt.Namespace, w.NomadAt.Region)
}

// WarmRegistered implements warm.Store.
func (s *claimStore) WarmRegistered(ctx context.Context, id string, at router.NomadAt, tokenHash [32]byte) error {
	return s.exec(ctx, router.SourceRouter, warmRegisteredSQL, id, at.Namespace, at.Region, tokenHash[:])
}

// StopWarm implements warm.Store.
func (s *claimStore) StopWarm(ctx context.Context, id string, gone bool, reason string, now time.Time) (bool, error) {
	query := stopWarmSQL
	if gone {
		query = warmGoneSQL
	}
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (bool, error) {
		n, err := t.exec(query, id, reason, millis(now))
		return n > 0, err
	})
}

// EndWarm implements warm.Store.
func (s *claimStore) EndWarm(ctx context.Context, id string) error {
	return s.exec(ctx, router.SourceRouter, endWarmSQL, id)
}

// DoubtWarm implements server.Store.
func (s *claimStore) DoubtWarm(ctx context.Context) error {
	return s.exec(ctx, router.SourceRouter, doubtWarmSQL)
}

// RunnersOf implements warm.Store.
func (s *claimStore) RunnersOf(ctx context.Context, rule string) (n int, err error) {
	err = s.querier(ctx)(into(&n), warmRunnersSQL, rule)
	return n, err
}

// WarmOf implements claim.Store.
func (s *claimStore) WarmOf(ctx context.Context, tokenHash [32]byte) (router.WarmRunner, error) {
	return only(s.querier(ctx), "read the warm runner of a claim token", scanWarm, warmOfSQL, tokenHash[:])
}

// WarmReady implements claim.Store.
func (s *claimStore) WarmReady(ctx context.Context, id string, now time.Time) error {
	return s.exec(ctx, router.SourceRunner, readyWarmSQL, id, millis(now))
}

// NoLongerWarm implements claim.Store.
func (s *claimStore) NoLongerWarm(ctx context.Context, ids []string) ([]string, error) {
	return s.among(ctx, noLongerWarmSQL, ids)
}

// NoWarm implements warm.Store.
func (s *claimStore) NoWarm(ctx context.Context, ids []string) ([]string, error) {
	return s.among(ctx, noWarmSQL, ids)
}

// among returns those of the warm runners that a query selects.
func (s *claimStore) among(ctx context.Context, query string, ids []string) ([]string, error) {
	of, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	return list(s.querier(ctx), "read which warm runners wait", func(rows *sql.Rows, id *string) error { return rows.Scan(id) }, query, string(of))
}

// TakeWarm implements dispatch.Store.
func (s *dispatchStore) TakeWarm(ctx context.Context, r router.Runner, fit string, d *router.Decision, now time.Time) (taken router.WarmRunner, err error) {
	// Mostly there is none, which must not cost a write.
	if err = one(s.querier(ctx), scanWarm, &taken, takeableSQL, r.Rule, fit); err != nil || taken.ID == "" {
		return router.WarmRunner{}, err
	}
	decision, err := asText(d)
	if err != nil {
		return taken, err
	}
	return changed(ctx, s.db, router.SourceRouter, func(t *tx) (w router.WarmRunner, err error) {
		if err = one(t.query, scanWarm, &w, takeableSQL, r.Rule, fit); err != nil || w.ID == "" {
			return w, err
		}
		waits, err := t.moveJob(r.JobID, prepareJobSQL, r.Fit, r.Try, millis(now), r.Rule, r.Rules)
		if err == nil && !waits {
			err = cmp.Or(mayNotStart(t, r), router.ErrNotWaiting)
		}
		if err != nil {
			return router.WarmRunner{}, err
		}
		where := "waited at the claim on node " + w.Node
		if w.State == router.WarmStarting {
			where = "was preparing itself on node " + w.Node
		}
		n, err := t.exec(takeWarmSQL, r.ID, r.JobID, r.Try, r.Name, w.ID, w.NomadAt.Namespace, w.NomadAt.Region,
			"it was warm: it "+where, millis(now), r.Fit, r.Rule, r.Rules, w.Node)
		if err != nil || n == 0 { // Nomad may have been asked for this runner before
			return router.WarmRunner{}, err
		}
		var token []byte
		if err := t.query(into(&token), warmTakenSQL, w.ID, r.JobID, millis(now)); err != nil {
			return w, err
		}
		if _, err := t.exec(insertClaimSQL, token, r.ID); err != nil {
			return w, err
		}
		w.State, w.JobID = router.WarmTaken, r.JobID
		return w, dispatched(t, r, d, decision, fmt.Sprintf("it has the warm runner %s, which %s", w.ID, where), now)
	})
}

// seeWarm records what happened to the Nomad job of a warm runner that no job has taken.
func seeWarm(t *tx, e router.NomadEvent, now time.Time) error {
	id, at := e.Job, millis(now)
	node := cmp.Or(e.Node, "without a name")
	var err error
	switch e.Kind {
	case router.NomadPlaced, router.NomadStarted:
		_, err = t.exec(warmPlacedSQL, id, at, node)
	case router.NomadWaits:
		_, err = t.exec(warmUnplacedSQL, id, at)
	case router.NomadEnded:
		_, err = t.exec(warmGoneSQL, id, words("its Nomad job ended before a job took it", e.Text), at)
	case router.NomadUnknown:
		_, err = t.exec(warmGoneSQL, id, "its node "+node+" is disconnected from Nomad", at)
	case router.NomadStopped:
		_, err = t.exec(warmGoneSQL, id, "its Nomad job was "+cmp.Or(e.Text, "stopped"), at)
	}
	if err != nil {
		return fmt.Errorf("record that warm runner %s is %s: %w", id, e.Kind, err)
	}
	return nil
}
