-- +goose Up

-- What runners ask before the first step of the job that GitHub gave them, and the answers.
CREATE TABLE verifications (
    token_hash BLOB NOT NULL PRIMARY KEY, -- SHA-256
    runner_id  TEXT NOT NULL REFERENCES runners (id),
    asked      TEXT NOT NULL, -- about which job; empty: it has not been answered
    refusal    TEXT NOT NULL  -- why the runner must not serve that; empty: it may
) STRICT, WITHOUT ROWID;

CREATE INDEX verifications_runner ON verifications (runner_id);

-- Which jobs GitHub may have given a runner, by their run.
CREATE INDEX jobs_run ON jobs (run_id) WHERE state IN ('held', 'queued', 'retrying', 'dispatched', 'running', 'denied', 'unroutable');

ALTER TABLE runners ADD COLUMN keep       INTEGER NOT NULL DEFAULT 0; -- milliseconds for which it stays if its job fails
ALTER TABLE runners ADD COLUMN kept_until INTEGER NOT NULL DEFAULT 0; -- its job failed, and it stays until then

CREATE INDEX runners_unkept ON runners (id) WHERE state = 'finished' AND ended_at = 0 AND keep > 0 AND kept_until = 0;
