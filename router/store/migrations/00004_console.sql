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
