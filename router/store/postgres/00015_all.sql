-- +goose Up

-- The schema that SQLite has after its migration of the same number; what each table and
-- column is for is said there. Text is compared byte by byte, as there.

-- What SQLite has and PostgreSQL has not.

CREATE FUNCTION iif(test BOOLEAN, yes ANYCOMPATIBLE, no ANYCOMPATIBLE) RETURNS ANYCOMPATIBLE
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT CASE WHEN test THEN yes ELSE no END $$;

-- +goose StatementBegin
CREATE FUNCTION iif(test TEXT, yes ANYCOMPATIBLE, no ANYCOMPATIBLE) RETURNS ANYCOMPATIBLE -- of a boolean in JSON
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT CASE WHEN test = 'true' THEN yes ELSE no END $$;
-- +goose StatementEnd

CREATE FUNCTION instr(of TEXT, part TEXT) RETURNS INTEGER
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT strpos(of, part) $$;

-- +goose StatementBegin
CREATE FUNCTION strftime(format TEXT, seconds BIGINT, modifier TEXT) RETURNS TEXT -- in the one format that is asked for
LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT to_char(to_timestamp(seconds) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION json_each(list TEXT) RETURNS TABLE (value TEXT)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT json_array_elements_text(CASE WHEN json_typeof(list::json) = 'array' THEN list::json END) $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION rule_of(decision TEXT) RETURNS TEXT -- it begins with the outcome and the rule, and is long
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT split_part(substr(decision, 1, 200), '"', 8) $$;
-- +goose StatementEnd

-- Who says what a transaction writes.
-- +goose StatementBegin
CREATE FUNCTION source() RETURNS TEXT
LANGUAGE sql STABLE AS $$ SELECT coalesce(nullif(current_setting('switchyard.source', true), ''), 'router') $$;
-- +goose StatementEnd

CREATE TABLE deliveries (
    id          TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    job_id      BIGINT NOT NULL,
    action      TEXT   COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL,
    digest      BYTEA
);

CREATE INDEX deliveries_received ON deliveries (received_at);
CREATE INDEX deliveries_digest ON deliveries (digest) WHERE digest IS NOT NULL;

CREATE TABLE jobs (
    id            BIGINT  NOT NULL PRIMARY KEY,
    run_id        BIGINT  NOT NULL,
    attempt       BIGINT  NOT NULL,
    owner         TEXT    COLLATE "C" NOT NULL,
    repo          TEXT    COLLATE "C" NOT NULL,
    private       BOOLEAN NOT NULL,
    visibility    TEXT    COLLATE "C" NOT NULL,
    fork          BOOLEAN NOT NULL,
    name          TEXT    COLLATE "C" NOT NULL,
    workflow      TEXT    COLLATE "C" NOT NULL,
    branch        TEXT    COLLATE "C" NOT NULL,
    sender        TEXT    COLLATE "C" NOT NULL,
    labels        TEXT    COLLATE "C" NOT NULL,
    url           TEXT    COLLATE "C" NOT NULL,
    state         TEXT    COLLATE "C" NOT NULL CHECK (state IN ('held', 'queued', 'retrying', 'dispatched', 'running',
                                                                'completed', 'ignored', 'denied', 'unroutable')),
    reason        TEXT    COLLATE "C" NOT NULL CHECK (reason <> ''),
    decision      TEXT    COLLATE "C",
    try           BIGINT  NOT NULL CHECK (try >= 1),
    failures      BIGINT  NOT NULL,
    due_at        BIGINT  NOT NULL,
    received_at   BIGINT  NOT NULL,
    updated_at    BIGINT  NOT NULL,
    runner_name   TEXT    COLLATE "C" NOT NULL,
    conclusion    TEXT    COLLATE "C" NOT NULL,
    limit_key     TEXT    COLLATE "C" NOT NULL DEFAULT '',
    host          TEXT    COLLATE "C" NOT NULL DEFAULT '',
    sha           TEXT    COLLATE "C" NOT NULL DEFAULT '',
    fit           TEXT    COLLATE "C" NOT NULL DEFAULT '',
    fallback      BIGINT  NOT NULL DEFAULT 0,
    dispatched_at BIGINT  NOT NULL DEFAULT 0,
    running_at    BIGINT  NOT NULL DEFAULT 0,
    completed_at  BIGINT  NOT NULL DEFAULT 0,
    asked_at      BIGINT  NOT NULL DEFAULT 0,
    fallback_at   BIGINT  NOT NULL DEFAULT 0,
    time_limit    BIGINT  NOT NULL DEFAULT 0,
    cancelled_at  BIGINT  NOT NULL DEFAULT 0,
    queued_at     BIGINT  NOT NULL DEFAULT 0,
    overruled     TEXT    COLLATE "C" NOT NULL DEFAULT '',
    cause         TEXT    COLLATE "C" NOT NULL DEFAULT ''
);

CREATE INDEX jobs_due ON jobs (due_at, id) WHERE state IN ('queued', 'retrying');
CREATE INDEX jobs_turn ON jobs (host, owner, repo, due_at, id) WHERE state IN ('queued', 'retrying');
CREATE INDEX jobs_state ON jobs (state, id);
CREATE INDEX jobs_limit ON jobs (limit_key, state)
WHERE limit_key <> '' AND state IN ('held', 'queued', 'retrying', 'dispatched', 'running');
CREATE INDEX jobs_fit ON jobs (fit, state) WHERE fit <> '';
CREATE INDEX jobs_fallback ON jobs (fallback_at) WHERE fallback_at <> 0 AND state = 'dispatched';
CREATE INDEX jobs_runner ON jobs (runner_name) WHERE state = 'running';
CREATE INDEX jobs_completed ON jobs (updated_at) WHERE state IN ('completed', 'ignored', 'denied', 'unroutable');
CREATE INDEX jobs_foreign ON jobs (updated_at) WHERE state IN ('ignored', 'denied');
CREATE INDEX jobs_owner ON jobs (lower(owner), id);
CREATE INDEX jobs_repo ON jobs (lower(repo), lower(owner), id);
CREATE INDEX jobs_rule ON jobs (rule_of(decision), id) WHERE decision IS NOT NULL;
CREATE INDEX jobs_received ON jobs (received_at);
CREATE INDEX jobs_host ON jobs (host, id);
CREATE INDEX jobs_started ON jobs (running_at) WHERE running_at <> 0;
CREATE INDEX jobs_cause ON jobs (cause, id) WHERE cause = 'runner_ended';

CREATE TABLE runners (
    id         TEXT    COLLATE "C" NOT NULL PRIMARY KEY,
    job_id     BIGINT  NOT NULL REFERENCES jobs (id),
    try        BIGINT  NOT NULL,
    state      TEXT    COLLATE "C" NOT NULL CHECK (state IN ('dispatched', 'claimed', 'online', 'busy', 'finished', 'lost', 'stopped')),
    name       TEXT    COLLATE "C" NOT NULL UNIQUE,
    github_id  BIGINT  NOT NULL,
    nomad_job  TEXT    COLLATE "C" NOT NULL,
    namespace  TEXT    COLLATE "C" NOT NULL,
    region     TEXT    COLLATE "C" NOT NULL,
    created_at BIGINT  NOT NULL,
    updated_at BIGINT  NOT NULL,
    reason     TEXT    COLLATE "C" NOT NULL DEFAULT 'Nomad is asked for it',
    state_at   BIGINT  NOT NULL DEFAULT 0,
    fit        TEXT    COLLATE "C" NOT NULL DEFAULT '',
    target     TEXT    COLLATE "C" NOT NULL DEFAULT '',
    placed_at  BIGINT  NOT NULL DEFAULT 0,
    node       TEXT    COLLATE "C" NOT NULL DEFAULT '',
    unplaced   TEXT    COLLATE "C",
    ended_at   BIGINT  NOT NULL DEFAULT 0,
    own        BOOLEAN NOT NULL DEFAULT false,
    end_words  TEXT    COLLATE "C" NOT NULL DEFAULT '',
    cause      TEXT    COLLATE "C" NOT NULL DEFAULT '',
    cause_text TEXT    COLLATE "C" NOT NULL DEFAULT '',
    ended_job  BIGINT  NOT NULL DEFAULT 0,
    UNIQUE (job_id, try)
);

CREATE INDEX runners_claimed ON runners (id) WHERE state = 'claimed';
CREATE INDEX runners_nomad ON runners (nomad_job) WHERE nomad_job <> '';
CREATE INDEX runners_live ON runners (state) WHERE ended_at = 0;
CREATE INDEX runners_open ON runners (id) WHERE ended_at <> 0 AND state IN ('dispatched', 'claimed', 'online', 'busy');
CREATE INDEX runners_given_up ON runners (state, job_id, try) WHERE state IN ('lost', 'stopped');

CREATE TABLE claims (
    token_hash BYTEA NOT NULL PRIMARY KEY,
    runner_id  TEXT  COLLATE "C" NOT NULL REFERENCES runners (id)
);

CREATE INDEX claims_runner ON claims (runner_id);

CREATE TABLE events (
    id        BIGINT NOT NULL GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at        BIGINT NOT NULL,
    job_id    BIGINT,
    runner_id TEXT   COLLATE "C",
    source    TEXT   COLLATE "C" NOT NULL,
    state     TEXT   COLLATE "C" NOT NULL,
    what      TEXT   COLLATE "C" NOT NULL
);

CREATE INDEX events_job ON events (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX events_runner ON events (runner_id) WHERE runner_id IS NOT NULL;

-- +goose StatementBegin
CREATE FUNCTION job_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO events (at, job_id, source, state, what) VALUES (NEW.updated_at, NEW.id, source(), NEW.state, NEW.reason);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER jobs_begin AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION job_event();
CREATE TRIGGER jobs_go_on AFTER UPDATE OF state, reason ON jobs FOR EACH ROW
WHEN (NEW.state <> OLD.state OR NEW.reason <> OLD.reason) EXECUTE FUNCTION job_event();

-- +goose StatementBegin
CREATE FUNCTION runner_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO events (at, runner_id, source, state, what) VALUES (NEW.updated_at, NEW.id, source(), NEW.state, NEW.reason);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER runners_begin AFTER INSERT ON runners FOR EACH ROW EXECUTE FUNCTION runner_event();
CREATE TRIGGER runners_go_on AFTER UPDATE OF state, reason ON runners FOR EACH ROW
WHEN (NEW.state <> OLD.state OR NEW.reason <> OLD.reason) EXECUTE FUNCTION runner_event();

-- +goose StatementBegin
CREATE FUNCTION runner_state_at() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.state_at := NEW.updated_at;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER runners_since BEFORE UPDATE OF state ON runners FOR EACH ROW
WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION runner_state_at();

CREATE TABLE marks (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

CREATE TABLE hooks (
    kind     TEXT    COLLATE "C" NOT NULL,
    id       BIGINT  NOT NULL,
    owner    TEXT    COLLATE "C" NOT NULL,
    repo     TEXT    COLLATE "C" NOT NULL,
    swept    BIGINT  NOT NULL,
    newest   BIGINT  NOT NULL,
    cursor   TEXT    COLLATE "C" NOT NULL,
    heard_at BIGINT  NOT NULL DEFAULT 0,
    proved   BOOLEAN NOT NULL DEFAULT false,
    PRIMARY KEY (kind, id)
);

CREATE TABLE redeliveries (
    guid        TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    hook_kind   TEXT   COLLATE "C" NOT NULL,
    hook_id     BIGINT NOT NULL,
    delivery_id BIGINT NOT NULL,
    sent_at     BIGINT NOT NULL,
    tries       BIGINT NOT NULL,
    due_at      BIGINT,
    action      TEXT   COLLATE "C" NOT NULL DEFAULT ''
);

CREATE INDEX redeliveries_due ON redeliveries (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE feedback (
    job_id    BIGINT NOT NULL PRIMARY KEY,
    kind      TEXT   COLLATE "C" NOT NULL,
    github_id BIGINT NOT NULL,
    state     TEXT   COLLATE "C" NOT NULL,
    said      TEXT   COLLATE "C" NOT NULL,
    due_at    BIGINT
);

CREATE INDEX feedback_due ON feedback (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE audit (
    id      BIGINT NOT NULL GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    who     TEXT   COLLATE "C" NOT NULL,
    did     TEXT   COLLATE "C" NOT NULL,
    what    TEXT   COLLATE "C" NOT NULL,
    result  TEXT   COLLATE "C" NOT NULL,
    login   TEXT   COLLATE "C" NOT NULL DEFAULT '',
    address TEXT   COLLATE "C" NOT NULL DEFAULT ''
);

CREATE INDEX audit_at ON audit (at);

CREATE TABLE rules_versions (
    id     BIGINT NOT NULL PRIMARY KEY,
    at     BIGINT NOT NULL,
    hash   TEXT   COLLATE "C" NOT NULL,
    who    TEXT   COLLATE "C" NOT NULL,
    origin TEXT   COLLATE "C" NOT NULL,
    note   TEXT   COLLATE "C" NOT NULL,
    files  TEXT   COLLATE "C" NOT NULL
);

CREATE TABLE job_labels (
    label  TEXT   COLLATE "C" NOT NULL,
    job_id BIGINT NOT NULL,
    PRIMARY KEY (label, job_id)
);

-- +goose StatementBegin
CREATE FUNCTION job_labels_add() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO job_labels (label, job_id) SELECT lower(substr(value, 1, 64)), NEW.id FROM json_each(NEW.labels) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER jobs_labelled AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION job_labels_add();

-- +goose StatementBegin
CREATE FUNCTION job_labels_remove() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM job_labels WHERE job_id = OLD.id AND label IN (SELECT lower(substr(value, 1, 64)) FROM json_each(OLD.labels));
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER jobs_unlabelled AFTER DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION job_labels_remove();

CREATE TABLE troubles (
    job_id BIGINT NOT NULL,
    cause  TEXT   COLLATE "C" NOT NULL,
    since  BIGINT NOT NULL,
    what   TEXT   COLLATE "C" NOT NULL,
    PRIMARY KEY (job_id, cause)
);

-- +goose StatementBegin
CREATE FUNCTION trouble_opens() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO troubles (job_id, cause, since, what) VALUES (NEW.id, NEW.cause, NEW.updated_at, NEW.reason)
    ON CONFLICT (job_id, cause) DO UPDATE SET what = excluded.what;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER troubles_open AFTER UPDATE OF cause, reason ON jobs FOR EACH ROW
WHEN (NEW.state IN ('retrying', 'dispatched') AND NEW.cause IN ('nomad', 'nomad_refused', 'silent', 'github', 'github_refused', 'github_limit',
    'runner', 'died', 'no_job', 'no_node_fits', 'out_of_service')) EXECUTE FUNCTION trouble_opens();

-- +goose StatementBegin
CREATE FUNCTION trouble_closes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM troubles WHERE job_id = NEW.id AND (NEW.state NOT IN ('queued', 'retrying', 'dispatched')
        OR NEW.state = 'dispatched' AND cause IN ('nomad', 'nomad_refused', 'silent')
        OR NEW.cause IN ('starting', 'no_node_free', 'no_node_fits', 'out_of_service') AND cause IN ('no_node_fits', 'out_of_service') AND cause <> NEW.cause);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER troubles_close AFTER UPDATE OF state, cause ON jobs FOR EACH ROW EXECUTE FUNCTION trouble_closes();

-- +goose StatementBegin
CREATE FUNCTION trouble_configured() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM troubles WHERE job_id = NEW.job_id AND cause IN ('runner', 'github', 'github_refused', 'github_limit');
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER troubles_configured AFTER UPDATE OF state ON runners FOR EACH ROW
WHEN (NEW.state = 'online' AND OLD.state <> 'online') EXECUTE FUNCTION trouble_configured();

-- +goose StatementBegin
CREATE FUNCTION trouble_forgotten() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM troubles WHERE job_id = OLD.id;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER troubles_forget AFTER DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION trouble_forgotten();
