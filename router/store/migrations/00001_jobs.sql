-- +goose Up

-- Marks the file as Switchyard's ("SwYd"), so that another program's database
-- is refused and not written to.
PRAGMA application_id = 1400330596;

-- Every time is in UTC milliseconds.

CREATE TABLE deliveries (
    id          TEXT    NOT NULL PRIMARY KEY, -- X-GitHub-Delivery
    job_id      INTEGER NOT NULL,
    action      TEXT    NOT NULL,
    received_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id          INTEGER NOT NULL PRIMARY KEY, -- GitHub's workflow_job.id
    run_id      INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    owner       TEXT    NOT NULL,
    repo        TEXT    NOT NULL,
    private     INTEGER NOT NULL,
    visibility  TEXT    NOT NULL,
    fork        INTEGER NOT NULL,
    name        TEXT    NOT NULL,
    workflow    TEXT    NOT NULL,
    branch      TEXT    NOT NULL,
    sender      TEXT    NOT NULL,
    labels      TEXT    NOT NULL, -- JSON array
    url         TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('held', 'queued', 'retrying', 'dispatched', 'running',
                                                  'completed', 'ignored', 'denied', 'unroutable')),
    reason      TEXT    NOT NULL CHECK (reason <> ''),
    decision    TEXT,             -- JSON; NULL until decided
    try         INTEGER NOT NULL CHECK (try >= 1),
    failures    INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    runner_name TEXT    NOT NULL,
    conclusion  TEXT    NOT NULL
) STRICT;

CREATE INDEX jobs_due ON jobs (due_at, id) WHERE state IN ('queued', 'retrying');
CREATE INDEX jobs_state ON jobs (state);

-- job_id is the job the runner is meant for at present; see Store.Receive.
CREATE TABLE runners (
    id         TEXT    NOT NULL PRIMARY KEY,
    job_id     INTEGER NOT NULL REFERENCES jobs (id),
    try        INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('dispatched', 'claimed', 'online', 'busy', 'finished', 'lost', 'stopped')),
    name       TEXT    NOT NULL UNIQUE,
    github_id  INTEGER NOT NULL,
    nomad_job  TEXT    NOT NULL, -- empty until it is registered, as are the next two
    namespace  TEXT    NOT NULL,
    region     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (job_id, try)
) STRICT, WITHOUT ROWID;

-- What Recover looks for.
CREATE INDEX runners_claimed ON runners (id) WHERE state = 'claimed';

CREATE TABLE claims (
    token_hash BLOB NOT NULL PRIMARY KEY, -- SHA-256
    runner_id  TEXT NOT NULL REFERENCES runners (id)
) STRICT, WITHOUT ROWID;

CREATE INDEX claims_runner ON claims (runner_id);
