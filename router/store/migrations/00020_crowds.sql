-- +goose Up

ALTER TABLE jobs ADD COLUMN crowd TEXT    NOT NULL DEFAULT ''; -- router.Job.Crowd; empty: received before this migration
ALTER TABLE jobs ADD COLUMN wary  INTEGER NOT NULL DEFAULT 0;  -- router.Wary

CREATE INDEX jobs_crowd ON jobs (crowd, state)
WHERE crowd <> '' AND state IN ('held', 'queued', 'retrying', 'dispatched', 'running');

-- How many jobs GitHub hands out at the same time: of crowds whose jobs wait for one another,
-- and of their kinds, which last from run to run.
CREATE TABLE crowds (
    key        TEXT    NOT NULL PRIMARY KEY, -- of a crowd, or its kind
    width      INTEGER NOT NULL,             -- so many may have a runner; 0: not known
    capped     INTEGER NOT NULL,             -- 1: GitHub left the runner of one more idle
    held       INTEGER NOT NULL,             -- of a kind, 1: GitHub held one back that it had called queued
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
