-- +goose Up

ALTER TABLE jobs ADD COLUMN host          TEXT    NOT NULL DEFAULT ''; -- of its GitHub; empty: the first instance's
ALTER TABLE jobs ADD COLUMN sha           TEXT    NOT NULL DEFAULT ''; -- of the run's commit
ALTER TABLE jobs ADD COLUMN fit           TEXT    NOT NULL DEFAULT ''; -- Decision's, see router.Fit; empty until it is routed
ALTER TABLE jobs ADD COLUMN fallback      INTEGER NOT NULL DEFAULT 0;  -- the decision's fallback in force, from 1; 0: its own placement
ALTER TABLE jobs ADD COLUMN dispatched_at INTEGER NOT NULL DEFAULT 0;  -- first; 0: not yet
ALTER TABLE jobs ADD COLUMN running_at    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN completed_at  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN asked_at      INTEGER NOT NULL DEFAULT 0;  -- when GitHub was last asked about it; 0: never
ALTER TABLE jobs ADD COLUMN fallback_at   INTEGER NOT NULL DEFAULT 0;  -- when its next fallback is due, unless it has a node by then; 0: there is none
ALTER TABLE jobs ADD COLUMN time_limit    INTEGER NOT NULL DEFAULT 0;  -- milliseconds that it may run; 0: no limit

ALTER TABLE runners ADD COLUMN reason    TEXT    NOT NULL DEFAULT 'Nomad is asked for it';
ALTER TABLE runners ADD COLUMN state_at  INTEGER NOT NULL DEFAULT 0;  -- since when it is in its state
ALTER TABLE runners ADD COLUMN fit       TEXT    NOT NULL DEFAULT '';
ALTER TABLE runners ADD COLUMN target    TEXT    NOT NULL DEFAULT ''; -- router.Target; where it is registered
ALTER TABLE runners ADD COLUMN placed_at INTEGER NOT NULL DEFAULT 0;  -- when Nomad gave it a node; 0: not yet
ALTER TABLE runners ADD COLUMN node      TEXT    NOT NULL DEFAULT ''; -- its name
ALTER TABLE runners ADD COLUMN unplaced  TEXT;                        -- JSON: why it has none; NULL: nothing known
ALTER TABLE runners ADD COLUMN ended_at  INTEGER NOT NULL DEFAULT 0;  -- when its Nomad job was seen to have ended; 0: not yet

UPDATE runners SET state_at = updated_at;

CREATE INDEX runners_nomad ON runners (nomad_job) WHERE nomad_job <> '';
CREATE INDEX runners_live ON runners (state) WHERE ended_at = 0;
CREATE INDEX runners_open ON runners (id) WHERE ended_at <> 0 AND state IN ('dispatched', 'claimed', 'online', 'busy');
CREATE INDEX jobs_fit ON jobs (fit, state) WHERE fit <> '';
CREATE INDEX jobs_fallback ON jobs (fallback_at) WHERE fallback_at <> 0 AND state = 'dispatched';
CREATE INDEX jobs_runner ON jobs (runner_name) WHERE state = 'running';

-- The time line. Triggers write it, so that nothing that changes is left out.
CREATE TABLE events (
    id        INTEGER NOT NULL PRIMARY KEY,
    at        INTEGER NOT NULL,
    job_id    INTEGER, -- one of these two
    runner_id TEXT,
    source    TEXT    NOT NULL,
    state     TEXT    NOT NULL,
    what      TEXT    NOT NULL
) STRICT;

CREATE INDEX events_job ON events (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX events_runner ON events (runner_id) WHERE runner_id IS NOT NULL;

-- Who says what the transaction in hand writes; one row.
CREATE TABLE source (name TEXT NOT NULL) STRICT;
INSERT INTO source (name) VALUES ('router');

-- +goose StatementBegin
CREATE TRIGGER jobs_begin AFTER INSERT ON jobs BEGIN
    INSERT INTO events (at, job_id, source, state, what) SELECT NEW.updated_at, NEW.id, name, NEW.state, NEW.reason FROM source;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER jobs_go_on AFTER UPDATE OF state, reason ON jobs WHEN NEW.state <> OLD.state OR NEW.reason <> OLD.reason BEGIN
    INSERT INTO events (at, job_id, source, state, what) SELECT NEW.updated_at, NEW.id, name, NEW.state, NEW.reason FROM source;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER runners_begin AFTER INSERT ON runners BEGIN
    INSERT INTO events (at, runner_id, source, state, what) SELECT NEW.updated_at, NEW.id, name, NEW.state, NEW.reason FROM source;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER runners_go_on AFTER UPDATE OF state, reason ON runners WHEN NEW.state <> OLD.state OR NEW.reason <> OLD.reason BEGIN
    INSERT INTO events (at, runner_id, source, state, what) SELECT NEW.updated_at, NEW.id, name, NEW.state, NEW.reason FROM source;
    UPDATE runners SET state_at = NEW.updated_at WHERE id = NEW.id AND NEW.state <> OLD.state;
END;
-- +goose StatementEnd

-- Where something that is read bit by bit stands: Nomad's events, a hook's deliveries.
CREATE TABLE marks (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What pruning looks for.
CREATE INDEX deliveries_received ON deliveries (received_at);
CREATE INDEX jobs_completed ON jobs (updated_at) WHERE state IN ('completed', 'ignored', 'denied', 'unroutable');

-- GitHub's webhooks whose deliveries come here, and how far these were looked through.
CREATE TABLE hooks (
    kind   TEXT    NOT NULL, -- router.HookKind
    id     INTEGER NOT NULL, -- GitHub's; 0 for an App's
    owner  TEXT    NOT NULL,
    repo   TEXT    NOT NULL,
    swept  INTEGER NOT NULL, -- deliveries that were made before are done with
    newest INTEGER NOT NULL, -- of those that the sweep in hand has seen; 0: none
    cursor TEXT    NOT NULL, -- where that goes on; empty: none is in hand
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- Deliveries that failed and were not received since.
CREATE TABLE redeliveries (
    guid        TEXT    NOT NULL PRIMARY KEY, -- X-GitHub-Delivery
    hook_kind   TEXT    NOT NULL,
    hook_id     INTEGER NOT NULL,
    delivery_id INTEGER NOT NULL, -- GitHub's, of the newest attempt
    sent_at     INTEGER NOT NULL, -- of GitHub's clock
    tries       INTEGER NOT NULL,
    due_at      INTEGER           -- NULL: it is asked for no more
) STRICT, WITHOUT ROWID;

CREATE INDEX redeliveries_due ON redeliveries (due_at) WHERE due_at IS NOT NULL;

-- What operators look for. The jobs under one key are in the order of their IDs.
CREATE INDEX jobs_owner ON jobs (owner COLLATE NOCASE);
CREATE INDEX jobs_repo ON jobs (repo COLLATE NOCASE, owner COLLATE NOCASE);
CREATE INDEX jobs_rule ON jobs (decision ->> '$.rule') WHERE decision IS NOT NULL;
CREATE INDEX jobs_received ON jobs (received_at);

ALTER TABLE jobs ADD COLUMN cancelled_at INTEGER NOT NULL DEFAULT 0; -- when GitHub was asked to cancel its run, as nothing can serve it; 0: never

-- What is said of a job on its commit.
CREATE TABLE feedback (
    job_id    INTEGER NOT NULL PRIMARY KEY,
    kind      TEXT    NOT NULL, -- check_run or commit_status
    github_id INTEGER NOT NULL, -- of the check run; 0: none, or it is not known yet
    state     TEXT    NOT NULL, -- of the job, as it is said; empty: nothing was said
    said      TEXT    NOT NULL, -- its reason, likewise
    due_at    INTEGER           -- when something may be said again; NULL: never
) STRICT;

CREATE INDEX feedback_due ON feedback (due_at) WHERE due_at IS NOT NULL;
