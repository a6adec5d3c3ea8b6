-- +goose Up

-- Who changed what through the console or the API.
CREATE TABLE audit (
    id     INTEGER NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    who    TEXT    NOT NULL, -- the name of a token or person
    did    TEXT    NOT NULL, -- retry, cancel, stop, sync, apply, roll back, log in
    what   TEXT    NOT NULL, -- to which job, runner, repository or version of the rules
    result TEXT    NOT NULL  -- ok, or why it was not done
) STRICT;

-- What the files of the rules held, so that an earlier version can be put back.
CREATE TABLE rules_versions (
    id     INTEGER NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    hash   TEXT    NOT NULL, -- of names and contents
    who    TEXT    NOT NULL, -- who applied it; '': it came by the files
    origin TEXT    NOT NULL, -- start, file changed, SIGHUP, applied, put back
    note   TEXT    NOT NULL, -- of who applied it
    files  TEXT    NOT NULL  -- JSON: [{"Name", "Source"}], the source in base64
) STRICT;
-- How long the jobs of the last day waited, for the console.
CREATE INDEX jobs_started ON jobs (running_at, received_at, decision ->> '$.rule', owner COLLATE NOCASE, repo COLLATE NOCASE) WHERE running_at <> 0;

-- Runners that came to nothing are few, and looked for among all.
CREATE INDEX runners_given_up ON runners (state, job_id, try) WHERE state IN ('lost', 'stopped');

CREATE INDEX audit_at ON audit (at); -- what pruning looks for
