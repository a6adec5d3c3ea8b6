-- +goose Up

ALTER TABLE jobs ADD COLUMN crowd TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN wary  BIGINT NOT NULL DEFAULT 0;

CREATE INDEX jobs_crowd ON jobs (crowd, state)
WHERE crowd <> '' AND state IN ('held', 'queued', 'retrying', 'dispatched', 'running');

CREATE TABLE crowds (
    key        TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    width      BIGINT NOT NULL,
    capped     BIGINT NOT NULL,
    held       BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
