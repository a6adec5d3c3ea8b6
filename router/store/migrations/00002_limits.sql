-- +goose Up

-- What the job is counted under, or, while it is held, waits for; empty when
-- its rule has no limit.
ALTER TABLE jobs ADD COLUMN limit_key TEXT NOT NULL DEFAULT '';

CREATE INDEX jobs_limit ON jobs (limit_key, state)
WHERE limit_key <> '' AND state IN ('held', 'queued', 'retrying', 'dispatched', 'running');
