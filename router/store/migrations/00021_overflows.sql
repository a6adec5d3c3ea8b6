-- +goose Up

-- Actions variables that Switchyard has set so that new jobs run elsewhere, or is about to: the
-- intention is here before GitHub is asked.
CREATE TABLE overflows (
    host       TEXT    NOT NULL,
    owner      TEXT    NOT NULL,
    repo       TEXT    NOT NULL, -- '': the organization's
    variable   TEXT    NOT NULL,
    rule       TEXT    NOT NULL,
    to_value   TEXT    NOT NULL,
    back_value TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('setting', 'set', 'undoing', 'left', 'over')),
    why        TEXT    NOT NULL,
    since      INTEGER NOT NULL,
    state_at   INTEGER NOT NULL,
    calm       INTEGER NOT NULL, -- for how long there must be room, until it is set back, in milliseconds
    PRIMARY KEY (host, owner, repo, variable)
) STRICT, WITHOUT ROWID;
