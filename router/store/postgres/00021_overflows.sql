-- +goose Up

-- Actions variables that Switchyard has set so that new jobs run elsewhere, or is about to: the
-- intention is here before GitHub is asked.
CREATE TABLE overflows (
    host       TEXT COLLATE "C" NOT NULL,
    owner      TEXT COLLATE "C" NOT NULL,
    repo       TEXT COLLATE "C" NOT NULL, -- '': the organization's
    variable   TEXT COLLATE "C" NOT NULL,
    rule       TEXT COLLATE "C" NOT NULL,
    to_value   TEXT COLLATE "C" NOT NULL,
    back_value TEXT COLLATE "C" NOT NULL,
    state      TEXT COLLATE "C" NOT NULL CHECK (state IN ('setting', 'set', 'undoing', 'left', 'over')),
    why        TEXT COLLATE "C" NOT NULL,
    since      BIGINT NOT NULL,
    state_at   BIGINT NOT NULL,
    calm       BIGINT NOT NULL, -- for how long there must be room, until it is set back, in milliseconds
    PRIMARY KEY (host, owner, repo, variable)
);
