-- +goose Up

-- What keeps jobs from their runners: router.Cause, since when, and the last words about it.
-- Triggers open a trouble when a job has its cause, and close it when its opposite was
-- seen, so that it stays while a job is tried again and again.
CREATE TABLE troubles (
    job_id INTEGER NOT NULL,
    cause  TEXT    NOT NULL,
    since  INTEGER NOT NULL,
    what   TEXT    NOT NULL,
    PRIMARY KEY (job_id, cause)
) STRICT, WITHOUT ROWID;

INSERT INTO troubles (job_id, cause, since, what)
SELECT id, cause, updated_at, reason FROM jobs
WHERE state IN ('retrying', 'dispatched') AND cause IN ('nomad', 'nomad_refused', 'github', 'github_limit', 'runner', 'no_job', 'no_node_fits');

-- +goose StatementBegin
CREATE TRIGGER troubles_open AFTER UPDATE OF cause, reason ON jobs
WHEN NEW.state IN ('retrying', 'dispatched') AND NEW.cause IN ('nomad', 'nomad_refused', 'silent', 'github', 'github_refused', 'github_limit',
    'runner', 'died', 'no_job', 'no_node_fits', 'out_of_service') BEGIN
    INSERT INTO troubles (job_id, cause, since, what) VALUES (NEW.id, NEW.cause, NEW.updated_at, NEW.reason)
    ON CONFLICT (job_id, cause) DO UPDATE SET what = excluded.what;
END;
-- +goose StatementEnd

-- A job that runs, ended, or must wait has no trouble. Nomad took the runner of one that
-- is dispatched. One that got a node, or would get one if it were free, has nodes that fit.
-- +goose StatementBegin
CREATE TRIGGER troubles_close AFTER UPDATE OF state, cause ON jobs
WHEN EXISTS (SELECT 1 FROM troubles WHERE job_id = NEW.id) BEGIN
    DELETE FROM troubles WHERE job_id = NEW.id AND (NEW.state NOT IN ('queued', 'retrying', 'dispatched')
        OR NEW.state = 'dispatched' AND cause IN ('nomad', 'nomad_refused', 'silent')
        OR NEW.cause IN ('starting', 'no_node_free', 'no_node_fits', 'out_of_service') AND cause IN ('no_node_fits', 'out_of_service') AND cause <> NEW.cause);
END;
-- +goose StatementEnd

-- A runner that has its configuration was not lost on the way to it, and GitHub registered it.
-- Whether GitHub gives it a job, and whether it lives until then, shows when a job runs.
-- +goose StatementBegin
CREATE TRIGGER troubles_configured AFTER UPDATE OF state ON runners
WHEN NEW.state = 'online' AND OLD.state <> 'online' AND EXISTS (SELECT 1 FROM troubles WHERE job_id = NEW.job_id) BEGIN
    DELETE FROM troubles WHERE job_id = NEW.job_id AND cause IN ('runner', 'github', 'github_refused', 'github_limit');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER troubles_forget AFTER DELETE ON jobs BEGIN
    DELETE FROM troubles WHERE job_id = OLD.id;
END;
-- +goose StatementEnd
