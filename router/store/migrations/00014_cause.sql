-- +goose Up

-- The one cause of jobs that have ended, and few have it: what operators look for, as the others.
CREATE INDEX jobs_cause ON jobs (cause) WHERE cause = 'runner_ended';
