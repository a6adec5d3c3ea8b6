-- +goose Up

-- Warm runners: Nomad jobs that wait at the claim for a job. One that a job took is in runners, too.
CREATE TABLE warm (
    id         TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- of the Nomad job
    rule       TEXT    COLLATE "C" NOT NULL,
    fit        TEXT    COLLATE "C" NOT NULL, -- router.WarmFit: which jobs may take it
    state      TEXT    COLLATE "C" NOT NULL, -- router.WarmState
    reason     TEXT    COLLATE "C" NOT NULL,
    token_hash BYTEA   NOT NULL, -- of its claim token
    namespace  TEXT    COLLATE "C" NOT NULL DEFAULT '',
    region     TEXT    COLLATE "C" NOT NULL DEFAULT '',
    registered BOOLEAN NOT NULL DEFAULT false, -- Nomad has it
    doubted    BOOLEAN NOT NULL DEFAULT false, -- it is not sure that it still waits
    node       TEXT    COLLATE "C" NOT NULL DEFAULT '',
    asked      TEXT    COLLATE "C" NOT NULL, -- JSON of router.Asked: what it reserves
    created_at BIGINT NOT NULL,
    placed_at  BIGINT NOT NULL DEFAULT 0, -- when Nomad gave it a node
    ready_at   BIGINT NOT NULL DEFAULT 0, -- when it came to the claim
    ended_at   BIGINT NOT NULL DEFAULT 0, -- when a job took it, or it was stopped or ended
    job_id     BIGINT NOT NULL DEFAULT 0  -- the job that took it; 0: none
);

CREATE UNIQUE INDEX warm_token ON warm (token_hash);
CREATE INDEX warm_live ON warm (state) WHERE state IN ('starting', 'ready', 'stopped');
CREATE INDEX warm_ended ON warm (ended_at) WHERE ended_at <> 0;
