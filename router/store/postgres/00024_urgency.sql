-- +goose Up

-- How urgent a job is under its limit; -1: that does not go by urgency, or it has none.
ALTER TABLE jobs ADD COLUMN urgency BIGINT NOT NULL DEFAULT -1;

-- Those that wait for a place, of each urgency the oldest first.
CREATE INDEX jobs_next ON jobs (limit_key, urgency, received_at, id, host, owner, repo)
WHERE state = 'held' AND cause = 'limit';
