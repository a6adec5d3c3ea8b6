-- +goose Up

-- When GitHub last had it queued; 0: never. An answer of GitHub's that was asked
-- for before then, and that it waits for an approval, is out of date.
ALTER TABLE jobs ADD COLUMN queued_at INTEGER NOT NULL DEFAULT 0;
