-- +goose Up

-- Warm runners: Nomad jobs that wait at the claim for a job. One that a job took is in runners, too.
CREATE TABLE warm (
    id         TEXT    NOT NULL PRIMARY KEY, -- of the Nomad job
    rule       TEXT    NOT NULL,
    fit        TEXT    NOT NULL, -- router.WarmFit: which jobs may take it
    state      TEXT    NOT NULL, -- router.WarmState
    reason     TEXT    NOT NULL,
    token_hash BLOB    NOT NULL, -- of its claim token
    namespace  TEXT    NOT NULL DEFAULT '',
    region     TEXT    NOT NULL DEFAULT '',
    registered INTEGER NOT NULL DEFAULT 0, -- Nomad has it
    doubted    INTEGER NOT NULL DEFAULT 0, -- it is not sure that it still waits
    node       TEXT    NOT NULL DEFAULT '',
    asked      TEXT    NOT NULL, -- JSON of router.Asked: what it reserves
    created_at INTEGER NOT NULL,
    placed_at  INTEGER NOT NULL DEFAULT 0, -- when Nomad gave it a node
    ready_at   INTEGER NOT NULL DEFAULT 0, -- when it came to the claim
    ended_at   INTEGER NOT NULL DEFAULT 0, -- when a job took it, or it was stopped or ended
    job_id     INTEGER NOT NULL DEFAULT 0  -- the job that took it; 0: none
) STRICT;

CREATE UNIQUE INDEX warm_token ON warm (token_hash);
CREATE INDEX warm_live ON warm (state) WHERE state IN ('starting', 'ready', 'stopped');
CREATE INDEX warm_ended ON warm (ended_at) WHERE ended_at <> 0;
